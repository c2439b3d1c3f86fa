"""Makes the parts of a run's page that are about its scores: matrix, retention, and what each task gained or lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from everlora.analysis.recorded import RecordedRun
from everlora.metrics.scores import minus
from everlora.report import charts
from everlora.report.numbers import interval, points
from everlora.report.page import Cell, Figure, Section, Table, Tile, text, without_empty
from everlora.runtime.sizes import size

if TYPE_CHECKING:
    import altair

MANY = 12
"""Tasks up to which lines of all of them can be told from each other in one drawing."""
ALL_STAGES, SOME_STAGES = 40, 10
"""Stages up to which all are shown, and how many of more."""
HEADLINES = (
    ("oa", "Overall accuracy", "mean over all tasks after the last one"),
    ("bwt", "Backward transfer", "change of earlier tasks since each was learned"),
    ("forgetting", "Forgetting", "from each task's best score to its last"),
    ("learning_accuracy", "Learning accuracy", "mean of each task right after it was learned"),
)


def tiles(run: RecordedRun) -> list[Tile]:
    """Return the headline numbers; of a run that is not at its end, those of the tasks learned so far."""
    found = [
        Tile(label, points(value, signed=name == "bwt"), interval(run.intervals.get(name)), note)
        for name, label, note in HEADLINES
        if (value := run.results.metrics.get(name)) is not None
    ]
    if not run.finished:
        scores = [score for score in run.now if score is not None]
        if scores:
            mean = sum(scores) / len(scores)
            found.insert(0, Tile("Mean so far", points(mean), "", f"over the {len(scores)} tasks that were scored"))
    general = run.results.metrics.get("general_delta")
    if general is not None:
        found.append(Tile("General ability", points(general, signed=True), "", "change since before the first task"))
    return [*found, Tile("Kept for the next task", size(run.results.memory_bytes), "", "beside the base model")]


def matrix_section(run: RecordedRun) -> Section:
    """Return the accuracy matrix as a table that is coloured, with what stands before the first task."""
    rows: list[list[Cell]] = []
    if run.results.base is not None:
        rows.append([text("nothing yet"), *(_heat(score) for score in run.results.base)])
    shown = stages_shown(run)
    for i, (name, row) in enumerate(zip(run.tasks, run.matrix.cells, strict=True)):
        if i in shown and (not run.joint or any(cell is not None for cell in row)):
            rows.append(
                [
                    text("all at once" if run.joint else f"{i + 1} · {name}"),
                    *(_heat(cell, new=i == j and not run.joint) for j, cell in enumerate(row)),
                ]
            )
    schedule = run.record.settings.evaluation.schedule
    notes = [] if schedule in ("full", "forward") or run.joint else [
        f"Tasks were scored on the {schedule!r} schedule; what has no number was not measured "
        f"(--eval-schedule full scores every task after each)."
    ]  # fmt: skip
    if len(shown) < len(run.tasks):
        notes.append(
            f"Of {len(run.tasks)} rows {len(shown)} are shown; matrix.json, and the JSON of this page, have all."
        )
    metric = {name: run.results.metric[name] for name in run.tasks if name in run.results.metric}
    if metric:
        notes.append(
            "Scored by " + ", ".join(f"{name}: {one}" for name, one in metric.items()) + "; else exact match."
        )
    table = Table(
        heads=["after learning", *run.tasks],
        rows=rows,
        caption="Percent right on each task's test rows."
        if run.joint
        else "Percent right on each task's test rows (columns) after each task was learned (rows). A framed number is "
        "a task right after it was learned.",
        name="matrix",
    )
    return Section("matrix", "Accuracy matrix", tables=[table], notes=notes)


def stages_shown(run: RecordedRun) -> set[int]:
    """Return the stages that are shown, from 0: all, or of a long sequence some, with the last that was scored."""
    count = len(run.tasks)
    if count <= ALL_STAGES:
        return set(range(count))
    return {round(k * run.last_row / (SOME_STAGES - 1)) for k in range(SOME_STAGES)}


def _heat(score: float | None, new: bool = False) -> Cell:
    if score is None:
        return Cell("")
    return Cell(points(score), heat=min(1.0, max(0.0, score / 100)), kind="new" if new else "number")


def retention_section(run: RecordedRun) -> Section | None:
    """Return how every task fared over the sequence; None where there is no sequence of scores."""
    shown = stages_shown(run)
    rows: list[charts.Row] = [
        {"stage": i + 1, "after": run.tasks[i], "task": name, "score": cell}
        for i, row in enumerate(run.matrix.cells)
        for j, (name, cell) in enumerate(zip(run.tasks, row, strict=True))
        if cell is not None and i >= j and i in shown
    ]
    if run.joint or len({row["stage"] for row in rows}) < 2:
        return None
    figures = [_retention(run, rows)]
    if (curve := _average(run)) is not None:
        figures.append(curve)
    return Section("retention", "Retention", figures=figures)


def _retention(run: RecordedRun, rows: Sequence[charts.Row]) -> Figure:
    count = len(run.tasks)
    draw = _lines if count <= MANY else _panels if count <= ALL_STAGES else _field
    table = Table(
        ["task", "after", "percent right"],
        [[text(str(r["task"])), text(str(r["after"])), Cell(points(_float(r["score"])))] for r in rows],
    )
    how = "A line begins where its task was learned, and falls where it is forgotten."
    return Figure(
        "retention",
        "Every task over the sequence",
        charts.svg(draw(run, rows), "Score of every task after each task that was learned"),
        how if count <= ALL_STAGES else "The darker, the more is right; a row begins where its task was learned.",
        table,
    )


def _axes(run: RecordedRun) -> tuple[altair.X, altair.Y]:
    """Return the axes of stages and of scores."""
    alt, count = charts.alt(), len(run.tasks)
    stage = alt.Axis(format="d", values=charts.stages(count))
    scale = alt.Scale(domain=[1, count], nice=False, padding=12)
    return (
        alt.X("stage:Q", title="tasks learned", axis=stage, scale=scale),
        alt.Y("score:Q", title="percent right", scale=alt.Scale(domain=[0, 100])),
    )


def _lines(run: RecordedRun, rows: Sequence[charts.Row]) -> altair.LayerChart:
    alt, names = charts.alt(), list(run.tasks)
    stage, score = _axes(run)
    colour = alt.Color("task:N", sort=names, title="task", scale=alt.Scale(domain=names))
    shape = alt.Shape("task:N", sort=names, title="task", scale=alt.Scale(domain=names))
    base = alt.Chart(charts.data(rows)).encode(x=stage, y=score, color=colour)
    made: altair.LayerChart = base.mark_line() + base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)
    return made.properties(width=charts.WIDTH - 120, height=300)


def _panels(run: RecordedRun, rows: Sequence[charts.Row]) -> altair.FacetChart:
    alt = charts.alt()
    stage, score = _axes(run)
    base = alt.Chart(charts.data(rows)).encode(x=stage, y=score)
    small = base.mark_line(color=charts.HUES[0]) + base.mark_point(
        filled=True, size=20, color=charts.HUES[0], opacity=1
    )
    facet = alt.Facet("task:N", sort=list(run.tasks), title=None)
    made: altair.FacetChart = small.properties(width=150, height=90).facet(facet=facet, columns=4, spacing=18)
    return made


def _field(run: RecordedRun, rows: Sequence[charts.Row]) -> altair.Chart:
    alt = charts.alt()
    scale = alt.Scale(domain=[0, 100], range=[charts.LIGHT, charts.DEEP])
    chart: altair.Chart = alt.Chart(charts.data(rows)).mark_rect().encode(
        x=alt.X("stage:O", title="tasks learned", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("task:N", sort=list(run.tasks), title=None),
        color=alt.Color("score:Q", scale=scale, title="percent right"),
    )  # fmt: skip
    return chart.properties(width=charts.WIDTH - 160, height=alt.Step(10))


def _average(run: RecordedRun) -> Figure | None:
    """Return the mean over the tasks seen so far; None where not all of them were scored."""
    rows: list[charts.Row] = []
    for i, row in enumerate(run.matrix.cells):
        seen = [cell for cell in row[: i + 1] if cell is not None]
        if len(seen) == i + 1:
            rows.append({"stage": i + 1, "after": run.tasks[i], "mean": sum(seen) / len(seen)})
    if len(rows) < max(2, run.last_row + 1):
        return None
    alt = charts.alt()
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("stage:Q", title="tasks learned", axis=alt.Axis(format="d", values=charts.stages(len(run.tasks))),
                scale=alt.Scale(domain=[1, len(run.tasks)], nice=False, padding=12)),
        y=alt.Y("mean:Q", title="mean percent right", scale=alt.Scale(domain=[0, 100])),
    )  # fmt: skip
    chart = base.mark_line(color=charts.HUES[0]) + base.mark_point(filled=True, size=55, color=charts.HUES[0])
    table = Table(["after", "mean"], [[text(str(row["after"])), Cell(points(_float(row["mean"])))] for row in rows])
    return Figure(
        "average", "Mean over the tasks seen so far",
        charts.svg(chart.properties(width=charts.WIDTH - 60, height=180), "Mean score of all tasks seen so far"),
        "The mean over all tasks learned up to then. Harder tasks lower it, too, without anything being forgotten.",
        table,
    )  # fmt: skip


def transfer_section(run: RecordedRun) -> Section | None:
    """Return per task what it scored when it was learned, at its best, and now; None where nothing can be set."""
    columns = [[row[j] for row in run.matrix.cells] for j in range(len(run.tasks))]
    best = [max((score for score in column if score is not None), default=None) for column in columns]
    first = [None] * len(run.tasks) if run.joint else list(run.matrix.diagonal)
    chance, base = run.results.chance or [], run.results.base or []
    heads = ["task", "guessing", "base model", "when learned", "best", "now", "change"]
    rows, drawn = [], list[charts.Row]()
    for j, name in enumerate(run.tasks):
        now, learned = run.now[j], first[j]
        if now is None:
            continue
        change = minus(now, learned) if j < run.last_row else None
        guess, start = (found[j] if j < len(found) else None for found in (chance, base))
        rows.append(
            [
                text(name),
                *(Cell(points(v)) for v in (guess, start, learned, best[j], now)),
                Cell(points(change, signed=True)),
            ]
        )
        drawn.append({"task": name, "now": now, "learned": learned, "change": change})
    how = "Percent right." if run.joint else "Percent right. Change: now against when the task was learned."
    table = without_empty(Table(heads, rows, how, "tasks"))
    if not rows:
        return None
    figures = [_dumbbells(drawn, table)] if any(row["learned"] is not None for row in drawn) else []
    transfer = [
        f"Forward transfer ({label}): {points(value, signed=True)} points."
        for name, label in (("fwt_base", "against the base model"), ("fwt_single", "against each task alone"))
        if (value := run.results.metrics.get(name)) is not None
    ]
    title = "Task by task" if run.joint else "Forgetting and transfer, task by task"
    return Section("tasks", title, figures=figures, tables=[table], notes=transfer)


def _dumbbells(rows: Sequence[charts.Row], table: Table) -> Figure:
    alt = charts.alt()
    names = [str(row["task"]) for row in rows]
    both = [row for row in rows if row["learned"] is not None]
    where = alt.Y("task:N", sort=names, title=None)
    span = alt.Chart(charts.data(both)).mark_rule(strokeWidth=2).encode(
        y=where, x=alt.X("learned:Q", title="percent right", scale=alt.Scale(domain=[0, 100])), x2="now:Q",
        color=alt.condition("datum.now < datum.learned", alt.value(charts.HUES[1]), alt.value(charts.HUES[2])),
    )  # fmt: skip
    then = alt.Chart(charts.data(both)).mark_point(filled=False, size=70, color=charts.MUTED, opacity=1).encode(
        y=where, x="learned:Q"
    )  # fmt: skip
    now = alt.Chart(charts.data(rows)).mark_point(filled=True, size=80, opacity=1).encode(
        y=where, x="now:Q",
        color=alt.condition("datum.now < datum.learned", alt.value(charts.HUES[1]), alt.value(charts.HUES[2])),
    )  # fmt: skip
    chart = (span + then + now).properties(width=charts.WIDTH - 150, height=max(60, 26 * len(names)))
    return Figure(
        "tasks", "From when it was learned to now", charts.svg(chart, "Score of each task when learned, and now"),
        "Open circle: right after the task was learned. Filled: as last measured; orange where it fell, green else.",
        table, repeated=True,
    )  # fmt: skip


def _float(value: str | float | int | bool | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None
