"""Draws how much of each update goes against the past: the weight change in the opposing direction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text


@figure(
    "opposing-change",
    paper="ELLA",
    where="Opposing direction weight change across the task sequence",
    title="Weight change against the past",
    needs="runs of methods with LoRA adapters, one of each method",
    reads="weights",
    single_run=True,
)
def opposing_change(paths: Sequence[Path]) -> Figure:
    """Draw the sum of |ΔW| over all entries whose sign is opposite to that of the past, after each task."""
    import torch

    from everlora.report.read import weights

    rows: list[charts.Row] = []
    for method, run in weights(paths).items():
        for number_, (task, added, past, _) in enumerate(run.updates(), start=1):
            if not len(past):
                continue
            total = 0.0
            for name, update in added.items():
                change, before = update.dense(), past.factors(name).dense()
                total += float(torch.where(change * before < 0, change.abs(), 0).sum())
            rows.append({"method": method, "tasks": number_, "task": task, "change": total})
    if not rows:
        raise ConfigError("no run has a second task, whose update could go against the first")
    names = list(dict.fromkeys(str(row["method"]) for row in rows))
    numbers = [[text(str(r["method"])), text(str(r["task"])), Cell(number(float(str(r["change"]))))] for r in rows]
    drawn = charts.lines(rows, "tasks", "change", names, "tasks learned", "Σ |ΔW| against the past", zero=True)
    return Figure(
        "opposing-change",
        "Weight change against the past",
        charts.svg(drawn, "Sum of the weight changes against the past, after every task"),
        "Sum of the magnitudes of all entries of an update whose sign is opposite to that of the sum of earlier ones. "
        "Smaller updates oppose less, too: see a method's learning accuracy beside it.",
        Table(["method", "task", "change"], numbers),
    )
