"""Makes the part of a run's page that is about weights: how each task's update met those before it."""

from __future__ import annotations

from collections.abc import Sequence
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
MANY_MODULES = 60


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
    if len(later[0].modules) <= MANY_MODULES:
        tables.append(_modules(later))
    return Section(
        "interference",
        "Interference",
        text=[
            "How the update of each task lies to the sum of those before it: a cosine below zero undoes them, one above "
            "zero repeats them, and near zero they have little to do with each other."
        ],
        figures=[_opposed(later)],
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
        "Interference: inner product of the update with the past. Opposed: share of entries with another sign than the "
        "past; conflict: the same by size. Free: share of directions that no task has used, in the tightest module."
    )
    return Table(heads, rows, caption, "interference")


def _modules(found: Sequence[TaskMeeting]) -> Table:
    rows = []
    for k, one in enumerate(found[0].modules):
        cosines = [task.modules[k].meeting.cosine if k < len(task.modules) else None for task in found]
        rows.append(
            [text(one.module), *(Cell(figure(c, 2), heat=None if c is None else min(1.0, abs(c))) for c in cosines)]
        )
    caption = (
        "Cosine between the update and the past, per adapted module; the further from zero, the stronger its ground."
    )
    return Table(["module", *(one.task for one in found)], rows, caption, "cosines")


def _opposed(found: Sequence[TaskMeeting]) -> Figure:
    alt = charts.alt()
    kinds = {"conflict, by size": lambda one: one.conflict, "opposed signs, by number": lambda one: one.opposed}
    rows: list[charts.Row] = [
        {"task": one.task, "kind": kind, "share": value(one)} for one in found for kind, value in kinds.items()
    ]
    names = [one.task for one in found]
    colours = alt.Scale(domain=list(kinds), range=[charts.HUES[0], charts.HUES[4]])
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("task:N", sort=names, title=None, axis=alt.Axis(labelAngle=0 if len(names) < 8 else -40)),
        y=alt.Y("share:Q", title="share of entries", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("kind:N", title=None, scale=colours, legend=alt.Legend(orient="top")),
    )
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(shape=alt.Shape("kind:N", title=None))
    chart = (base.mark_line() + marks).properties(width=charts.WIDTH - 60, height=190)
    numbers = [[text(one.task), Cell(figure(one.opposed)), Cell(figure(one.conflict))] for one in found]
    return Figure(
        "opposed",
        "Weight changes against the past",
        charts.svg(chart, "Share of entries of each update that oppose the past"),
        "Half of all entries oppose by chance; below it a task goes along with the earlier ones, above it against them.",
        Table(["task", "opposed", "conflict"], numbers),
    )
