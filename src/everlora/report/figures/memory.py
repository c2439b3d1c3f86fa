"""Draws the memory that methods train in, and what they keep: LB-CL's table of memory and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.costs import mean_cost
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import NOTHING
from everlora.report.page import Cell, Figure, Table, text
from everlora.report.read import compared
from everlora.runtime.sizes import size

ADAM = 16
"""Bytes of a number that is trained: its value, its gradient and two moments, in fp32."""
PARTS = ("trained numbers with their optimiser", "kept of earlier tasks")


@figure(
    "memory-table",
    paper="LB-CL",
    where="GPU Memory and Training Parameters per Task",
    title="Memory by method",
    needs="runs of any methods",
)
def memory_table(paths: Sequence[Path]) -> Figure:
    """Draw what each method adds to the base model's memory, and list the peak that was measured."""
    _, grouped = compared(paths)
    costs = {label: mean_cost([run.path for run in runs]) for label, runs in grouped.items()}
    rows: list[charts.Row] = [
        {"method": label, "what": what, "mb": count / 1e6}
        for label, cost in costs.items()
        for what, count in zip(PARTS, (ADAM * cost.trained, cost.memory_bytes), strict=True)
    ]
    alt = charts.alt()
    drawn = alt.Chart(charts.data(rows)).mark_bar(height={"band": 0.62}).encode(
        y=alt.Y("method:N", sort=list(costs), title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("mb:Q", title="MB beside the base model"),
        color=alt.Color("what:N", sort=list(PARTS), title=None, legend=alt.Legend(orient="top", labelLimit=300)),
        order=alt.Order("what:N", sort="descending"),
    ).properties(width=charts.WIDTH - 160, height=max(60, 26 * len(costs)))  # fmt: skip
    numbers = [
        [text(label), Cell(f"{cost.trained:,.0f}"), Cell(size(ADAM * cost.trained)), Cell(size(cost.memory_bytes)),
         Cell(NOTHING if cost.peak_bytes is None else size(cost.peak_bytes))]
        for label, cost in costs.items()
    ]  # fmt: skip
    return Figure(
        "memory-table",
        "Memory by method",
        charts.svg(drawn, "Megabytes that each method trains and keeps"),
        "Trained: per task, 16 bytes a number with gradient and Adam's moments, by arithmetic. Kept: after the last "
        "task. The peak is what the process was measured to take at most, of its GPU or else of the machine, base "
        "model, rows and libraries included; runs of one sweep share a process, and a later one its peak.",
        Table(["method", "trained per task", "with optimiser", "kept", "peak of the process"], numbers),
    )
