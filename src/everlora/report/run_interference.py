"""Makes the part of a run's page that is about weights: how each task's update met those before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.analysis.recorded import RecordedRun
from everlora.core.errors import EverloraError
from everlora.report import charts
from everlora.report.numbers import figure
from everlora.report.page import Cell, Figure, Section, Table, text

if TYPE_CHECKING:
    from everlora.analysis.interference import TaskMeeting

MOST_BYTES = 64_000_000
"""Size of all adapters up to which their updates are multiplied out for a page."""
MANY_CELLS = 3000
"""Cells of a table of modules and tasks beyond which it is left out."""


def interference_section(run: RecordedRun) -> Section | None:
    """Return how updates met the past, module by module; None where there is none to compare."""
    if run.joint or len(run.stages) < 2:
        return None
    weights = sum(file.stat().st_size for stage in run.stages for file in stage.path.glob("adapter_model.safetensors"))
    command = ("measure it", f"everlora inspect {run.path} --modules")
    if weights > MOST_BYTES:
        why = "The adapters are too large to be multiplied out for a page."
        return Section("interference", "Interference", text=[why], commands=[command])
    try:
        found = _meetings(run.path)
    except EverloraError as error:
        return Section("interference", "Interference", notes=[f"Not measured: {error}"])
    later = [one for one in found if one.cosine is not None]
    if not later:
        return None
    tables = [_tasks(found)]
    if len(later[0].modules) * len(later) <= MANY_CELLS:
        tables.append(_modules(later))
    return Section(
        "interference",
        "Interference",
        text=[
            "How the update of each task lies to the sum of those before it: a cosine below zero undoes them, one "
            "above zero repeats them, and near zero they have little to do with each other."
        ],
        figures=[drawn for drawn in (_opposed(later), _layers(later)) if drawn is not None],
        tables=tables,
    )


def _meetings(path: Path) -> list[TaskMeeting]:
    # Here, since whoever wants a page of a comparison need not wait for torch.
    from everlora.analysis.interference import inspect
    from everlora.analysis.runs import Run

    return inspect(Run.read(path))


def _tasks(found: Sequence[TaskMeeting]) -> Table:
    heads = ["task", "interference", "cosine", "opposed signs", "conflict", "free directions"]
    rows = [
        [
            text(one.task),
            *(Cell(figure(v)) for v in (one.interference, one.cosine, one.opposed, one.conflict, one.free)),
        ]
        for one in found
    ]
    caption = (
        "Interference: inner product of the update with the past. Opposed: share of entries with another sign than "
        "the past; conflict: the same by size. Free: share of directions that no task has used, in the tightest "
        "module."
    )
    return Table(heads, rows, caption, "interference")


def _modules(found: Sequence[TaskMeeting]) -> Table:
    names, prefix = shortened([one.module for one in found[0].modules])
    cosines = {one.task: {module.module: module.meeting.cosine for module in one.modules} for one in found}
    most = max((abs(c) for of in cosines.values() for c in of.values() if c is not None), default=0.0) or 1.0
    rows = []
    for module, name in names.items():
        known = [cosines[one.task].get(module) for one in found]
        rows.append([text(name), *(_cosine(value, most) for value in known)])
    caption = f"Cosine between the update and the past, per adapted module{prefix}; the further from zero, the darker."
    return Table(["module", *(one.task for one in found)], rows, caption, "cosines")


def _cosine(value: float | None, most: float) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.3f}".replace("-", "−"), heat=abs(value) / most)


def shortened(modules: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return names of modules without the beginning that all of them share, and words that say what was left out.

    >>> shortened(["model.layers.0.q", "model.layers.1.q"])
    ({'model.layers.0.q': '0.q', 'model.layers.1.q': '1.q'}, ' (names begin with model.layers.)')
    """
    shared = takewhile(lambda same: len(set(same)) == 1, zip(*(one.split(".")[:-1] for one in modules), strict=False))
    start = "".join(f"{same[0]}." for same in shared) if len(modules) > 1 else ""
    return {one: one.removeprefix(start) for one in modules}, f" (names begin with {start})" if start else ""


def _opposed(found: Sequence[TaskMeeting]) -> Figure:
    alt = charts.alt()
    shares = {
        "by number": {one.task: one.opposed for one in found},
        "by size": {one.task: one.conflict for one in found},
    }
    rows: list[charts.Row] = [
        {"task": task, "kind": kind, "share": share} for kind, of in shares.items() for task, share in of.items()
    ]
    names, kinds = [one.task for one in found], list(shares)
    reach = max(
        0.05, *(1.2 * abs(share - 0.5) for of in shares.values() for share in of.values() if share is not None)
    )
    turned = alt.Axis(labelAngle=0 if len(names) < 8 else -40)
    legend = alt.Legend(orient="top")
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("task:N", sort=names, title=None, axis=turned),
        y=alt.Y("share:Q", title="share opposed", scale=alt.Scale(domain=[0.5 - reach, 0.5 + reach], nice=False)),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds), legend=legend),
    )
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds), legend=legend)
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)
    half = alt.Chart(charts.data([{"half": 0.5}])).mark_rule(color=charts.MUTED, strokeDash=[4, 3]).encode(y="half:Q")
    chart = (half + base.mark_line() + marks).properties(width=charts.WIDTH - 60, height=190)
    numbers = [[text(one.task), Cell(figure(one.opposed)), Cell(figure(one.conflict))] for one in found]
    return Figure(
        "opposed",
        "Weight changes against the past",
        charts.svg(chart, "Share of each update that opposes the past"),
        "Entries of the update with another sign than the past. Half of them oppose by chance: above the dashed line "
        "a task goes against the earlier ones, below it along with them.",
        Table(["task", "by number", "by size"], numbers),
    )


def _layers(found: Sequence[TaskMeeting]) -> Figure | None:
    """Draw the mean cosine of every layer's modules; None where modules lie in no layers."""
    from everlora.analysis.layer_maps import placed

    rows: list[charts.Row] = []
    for one in found:
        layers: dict[tuple[str, int], list[float]] = {}
        for module in one.modules:
            if module.meeting.cosine is not None:
                layers.setdefault(placed(module.module)[:2], []).append(module.meeting.cosine)
        for (stack, block), cosines in sorted(layers.items()):
            rows.append({"task": one.task, "layer": f"{stack} {block}", "cosine": sum(cosines) / len(cosines)})
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    if len(names) < 2:
        return None
    alt, tasks = charts.alt(), [one.task for one in found]
    most = max(abs(float(str(row["cosine"]))) for row in rows) or 1.0
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("task:N", sort=tasks, title=None, axis=alt.Axis(labelAngle=0 if len(tasks) < 8 else -40)),
        y=alt.Y("layer:N", sort=names[::-1], title=None),
    )
    scale = alt.Scale(domain=[-most, 0, most], range=[charts.HUES[1], charts.PAPER, charts.HUES[0]], interpolate="rgb")
    cells = base.mark_rect().encode(color=alt.Color("cosine:Q", scale=scale, title="cosine"))
    drawn = cells.properties(width=charts.WIDTH - 200, height=alt.Step(max(8, 26 - len(names))))
    numbers = [[text(str(r["layer"])), text(str(r["task"])), Cell(figure(float(str(r["cosine"]))))] for r in rows]
    return Figure(
        "layers",
        "Interference by layer",
        charts.svg(drawn, "Cosine of every layer's update with the past, task by task"),
        "Mean over the modules of each layer; orange undoes the past, blue repeats it. The highest layer is on top.",
        Table(["layer", "task", "cosine"], numbers),
    )
