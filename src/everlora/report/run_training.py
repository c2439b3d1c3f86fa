"""Makes the parts of a run's page about its training: curves, and what penalties did to which module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from everlora.analysis.recorded import LoggedStep, RecordedRun, RecordedStage
from everlora.report import charts
from everlora.report.numbers import figure
from everlora.report.page import Cell, Figure, Section, Table, text
from everlora.report.run_interference import shortened

if TYPE_CHECKING:
    import altair

MARKED, RULED, NAMED = 200, 40, 8
"""Logged steps up to which each has a mark; tasks up to which each has a line where it begins, and its name there."""
MANY_CELLS = 3000
"""Cells of a table of modules and tasks beyond which it is left out."""
MANY_POINTS = 400
"""Logged steps of a run beyond which only every k-th is drawn."""


def curves_section(run: RecordedRun) -> Section | None:
    """Return loss, penalties, their share and their strength over all steps; None where nothing was logged."""
    if not any(stage.log for stage in run.stages):
        return None
    figures = [_curve(run, "loss", "Training loss", "loss", lambda one: one.loss, "")]
    if any(one.rho for stage in run.stages for one in stage.log):
        how = "Norm of the penalties' gradient over that of the task's; 0.01 to 1 is a sane share."
        figures.append(
            _curve(run, "penalty-share", "The penalty's share of the gradient", "share", lambda o: o.rho, how)
        )
    figures += _by_part(run, "penalty", "Penalty", "λ Ω", lambda one: one.penalties)
    figures += _by_part(run, "strength", "Strength λ of", "λ", lambda one: one.strengths)
    if any(stage.modules for stage in run.stages):
        figures.append(_norms(run))
    return Section("training", "Training", figures=figures)


def _by_part(
    run: RecordedRun, name: str, title: str, axis: str, values: Callable[[LoggedStep], Mapping[str, float]]
) -> list[Figure]:
    """Return the curve of each part that has such a value."""

    def of(part: str) -> Callable[[LoggedStep], float | None]:
        return lambda one: values(one).get(part)

    parts = sorted({part for stage in run.stages for one in stage.log for part in values(one)})
    return [_curve(run, f"{name}-{part}", f"{title} {part}", axis, of(part), "") for part in parts]


def _curve(
    run: RecordedRun, name: str, title: str, axis: str, value: Callable[[LoggedStep], float | None], caption: str
) -> Figure:
    rows, marks, before = list[charts.Row](), list[charts.Row](), 0
    for stage in run.stages:
        marks.append({"step": before, "task": stage.facts.name})
        rows += [
            {"step": before + one.step, "value": v, "task": stage.facts.name}
            for one in stage.log
            if (v := value(one)) is not None
        ]
        before += stage.steps
    shown = rows[:: max(1, len(rows) // MANY_POINTS)]
    chart = _over_steps(shown, marks, axis, before)
    table = Table(
        ["step", "task", axis],
        [[Cell(str(row["step"])), text(str(row["task"])), Cell(figure(_float(row["value"])))] for row in shown],
    )
    steps = "Steps of all tasks on one axis; a grey line begins each task. "
    return Figure(name, title, charts.svg(chart, f"{title} over all steps"), steps + caption, table)


def _over_steps(rows: Sequence[charts.Row], marks: Sequence[charts.Row], axis: str, steps: int) -> altair.LayerChart:
    alt = charts.alt()
    step = alt.X("step:Q", title="step", scale=alt.Scale(domain=[0, max(steps, 1)], nice=False))
    value = alt.Y("value:Q", title=axis, scale=alt.Scale(zero=axis != "loss"))
    base = alt.Chart(charts.data(rows)).encode(x=step, y=value, detail="task:N")
    layers = [base.mark_line(color=charts.HUES[0], strokeWidth=1.6)]
    if len(rows) <= MARKED:
        layers.append(base.mark_point(filled=True, size=12, color=charts.HUES[0], opacity=1))
    starts = alt.Chart(charts.data(marks)).encode(x=step)
    if len(marks) <= RULED:
        layers.insert(0, starts.mark_rule(color=charts.GRID, strokeWidth=1.5))
    if len(marks) <= NAMED:
        wide = charts.WIDTH // len(marks) - 12
        names = starts.mark_text(align="left", baseline="bottom", dx=3, fontSize=11, color=charts.MUTED, limit=wide)
        layers.append(names.encode(y=alt.value(-2), text="task:N"))
    made: altair.LayerChart = alt.layer(*layers)
    return made.properties(width=charts.WIDTH - 60, height=170)


def _norms(run: RecordedRun) -> Figure:
    """Draw the norm of the update that is being learned, over all modules, at each logged step."""
    rows, marks, before = list[charts.Row](), list[charts.Row](), 0
    for stage in run.stages:
        marks.append({"step": before, "task": stage.facts.name})
        for step in sorted({one.step for one in stage.modules}):
            total = sum(one.update_norm**2 for one in stage.modules if one.step == step) ** 0.5
            rows.append({"step": before + step, "value": total, "task": stage.facts.name})
        before += stage.steps
    shown = rows[:: max(1, len(rows) // MANY_POINTS)]
    table = Table(
        ["step", "task", "norm"],
        [[Cell(str(r["step"])), text(str(r["task"])), Cell(figure(_float(r["value"])))] for r in shown],
    )
    drawn = charts.svg(_over_steps(shown, marks, "Frobenius norm", before), "Norm of the update over all steps")
    how = "Frobenius norm over all adapted modules of the update that is being learned."
    return Figure("update-norm", "Size of the update", drawn, how, table)


def modules_section(run: RecordedRun) -> Section | None:
    """Return per module and task the penalty's share at the last logged step; None where there is none."""
    stages = [stage for stage in run.stages if any(one.rho for one in stage.modules)]
    modules = list(dict.fromkeys(one.module for stage in stages for one in stage.modules))
    if not stages or not modules:
        return None
    if len(stages) * len(modules) > MANY_CELLS:
        how = f"{len(modules)} modules and {len(stages)} tasks are too many for this page; modules.jsonl of each task"
        return Section("modules", "Where the penalty pulls", notes=[f"{how} has them."])
    names, prefix = shortened(modules)
    table = Table(
        ["module", *(stage.facts.name for stage in stages)],
        _module_rows(names, stages),
        f"The penalties' gradient as a share of the task's, per adapted module{prefix}, at the last logged step.",
        "modules",
    )
    return Section("modules", "Where the penalty pulls", tables=[table])


def _module_rows(names: Mapping[str, str], stages: Sequence[RecordedStage]) -> list[list[Cell]]:
    last = [
        {one.module: one.rho for one in stage.modules if one.step == max(m.step for m in stage.modules)}
        for stage in stages
    ]
    most = max((value for found in last for value in found.values()), default=0.0) or 1.0
    rows = []
    for module, name in names.items():
        known = [found.get(module) for found in last]
        rows.append([text(name), *(Cell("") if v is None else Cell(figure(v, 2), heat=v / most) for v in known)])
    return rows


def _float(value: str | float | int | bool | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None
