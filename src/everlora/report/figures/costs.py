"""Draws what methods keep and train: the tables of cost and memory of ELLA and LB-CL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.costs import mean_cost
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import NOTHING, duration, points
from everlora.report.page import Cell, Figure, Table, text
from everlora.report.read import compared, oa, rows_of
from everlora.runtime.sizes import size


@figure(
    "cost-table",
    paper="ELLA, LB-CL",
    where="tables of efficiency: trainable parameters, storage, replay, time per epoch",
    title="What methods cost",
    needs="runs of any methods",
)
def cost_table(paths: Sequence[Path]) -> Figure:
    """Draw overall accuracy against what is kept for the next task, and list what is trained, kept and waited for."""
    table, grouped = compared(paths)
    costs = {label: mean_cost([run.path for run in runs]) for label, runs in grouped.items()}
    scores = {row.method: oa(row) for row in rows_of(table)}
    ranked = sorted(costs, key=lambda label: scores[label])
    rows: list[charts.Row] = [
        {"method": label, "kept": max(1.0, costs[label].memory_bytes) / 1e6, "oa": scores[label], "left": bool(k % 2)}
        for k, label in enumerate(ranked)
    ]
    alt = charts.alt()
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("kept:Q", title="kept for the next task, MB", scale=alt.Scale(type="log")),
        y=alt.Y("oa:Q", title="overall accuracy, percent", scale=alt.Scale(zero=False)),
    )
    marks = base.mark_point(filled=True, size=80, opacity=1, color=charts.HUES[0])
    # Names of neighbours stand on either side, so that methods of about the same score do not cover each other's.
    right = base.mark_text(align="left", dx=8).transform_filter("!datum.left").encode(text="method:N")
    left = base.mark_text(align="right", dx=-8).transform_filter("datum.left").encode(text="method:N")
    drawn = (marks + right + left).properties(width=500, height=280)
    numbers = [
        [text(label), Cell(f"{one.trained:,.0f}"), Cell(size(one.memory_bytes)), Cell(f"{one.stored_rows:,.0f}"),
         Cell(duration(one.train)), Cell(NOTHING if one.epoch is None else duration(one.epoch)),
         Cell(points(scores[label]))]
        for label, one in costs.items()
    ]  # fmt: skip
    return Figure(
        "cost-table",
        "What methods cost",
        charts.svg(drawn, "Overall accuracy against what is kept for the next task"),
        "Means over runs; what is kept is measured after the last task, without the base model.",
        Table(["method", "trained", "kept", "rows kept", "training per task", "per epoch", "OA"], numbers),
    )
