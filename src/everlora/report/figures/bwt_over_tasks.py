"""Draws how backward transfer grows with the number of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import ScoredRun
from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import points
from everlora.report.page import Cell, Figure, Table, text
from everlora.report.read import compared


@figure(
    "bwt-over-tasks",
    paper="ELLA",
    where="Performance impact on Order 4 in terms of BWT",
    title="Backward transfer over the sequence",
    needs="runs with --eval-schedule full",
    single_run=True,
)
def bwt_over_tasks(paths: Sequence[Path]) -> Figure:
    """Draw BWT after every task: the mean change of the tasks before it since each was learned."""
    _, grouped = compared(paths)
    rows: list[charts.Row] = []
    for method, runs in grouped.items():
        for i in range(1, len(runs[0].answers.tasks)):
            values = [bwt_at(run, i) for run in runs]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                rows.append({"method": method, "tasks": i + 1, "bwt": sum(known) / len(known)})
    if len({row["tasks"] for row in rows}) < 2:
        raise ConfigError("no run has scores of earlier tasks after each task; run them with --eval-schedule full")
    names = list(dict.fromkeys(str(row["method"]) for row in rows))
    numbers = [[text(str(r["method"])), Cell(str(r["tasks"])), Cell(points(float(str(r["bwt"]))))] for r in rows]
    return Figure(
        "bwt-over-tasks",
        "Backward transfer over the sequence",
        charts.svg(charts.lines(rows, "tasks", "bwt", names, "tasks learned", "BWT, points"), "BWT after every task"),
        "Mean over runs of how the tasks before have changed since each was learned.",
        Table(["method", "tasks learned", "BWT"], numbers),
    )


def bwt_at(run: ScoredRun, i: int) -> float | None:
    """Return BWT after stage i, counted from 0; None where a cell is missing."""
    changes = []
    for j in range(i):
        then, now = run.answers.cells.get((j, j)), run.answers.cells.get((i, j))
        if then is None or now is None:
            return None
        changes.append(100 * float(now.mean() - then.mean()))
    return sum(changes) / len(changes)
