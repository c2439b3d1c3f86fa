"""Draws how far parameters move with each task, beside what is still right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text

if TYPE_CHECKING:
    import altair

    from everlora.analysis.recorded import RecordedRun
    from everlora.analysis.runs import Run

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_ENTRIES = 2_000_000
"""Entries of which quantiles are exact enough; of more, every k-th is taken."""


@figure(
    "parameter-shift",
    paper="PS-LoRA",
    where="Figure 1: (a) average accuracy over stages, (b) parameter shift distributions",
    title="Accuracy and parameter shift over the stages",
    needs="runs of methods with LoRA adapters, with --eval-schedule full for the left half",
    reads="weights",
    single_run=True,
)
def parameter_shift(paths: Sequence[Path]) -> Figure:
    """Draw mean accuracy over stages, and beside it quantiles of the entries of each task's update."""
    from everlora.analysis.recorded import recorded
    from everlora.report.read import weights

    found = weights(paths)
    left = [row for method, run in found.items() for row in _means(method, recorded(run.path))]
    right = [row for method, run in found.items() for row in _spreads(method, run)]
    if not right:
        raise ConfigError("the runs hold no adapters")
    names = list(found)
    shifts = _boxes(right, names)
    curves = charts.lines(left, "tasks", "mean", names, "tasks learned", "mean percent right", width=230, legend=False)
    # Of some methods alone it would be read as being of all.
    both = len({row["tasks"] for row in left}) > 1 and {row["method"] for row in left} == set(names)
    # Each with its own scale, since a shared one has the legend of the first, which has none.
    drawn = charts.alt().hconcat(curves, shifts, spacing=30).resolve_scale(color="independent") if both else shifts
    numbers = [
        [text(str(r["method"])), Cell(str(r["tasks"])), *(Cell(number(float(str(r[f"q{k}"])))) for k in range(5))]
        for r in right
    ]
    return Figure(
        "parameter-shift",
        "Accuracy and parameter shift over the stages",
        charts.svg(drawn, "Mean accuracy over stages, and quantiles of the entries of each update"),
        "Left: mean score of the tasks seen so far. Right: how the entries of each task's update are spread; a bar "
        "holds the middle half of them, a line nine in ten.",
        Table(["method", "task", *(f"{100 * share:g} %" for share in SHARES)], numbers),
    )


def _means(method: str, run: RecordedRun) -> list[charts.Row]:
    """Return the mean over the tasks seen so far after each stage; nothing where some were not scored then."""
    rows: list[charts.Row] = []
    for i, row in enumerate(run.matrix.cells):
        seen = [cell for cell in row[: i + 1] if cell is not None]
        if len(seen) < i + 1:
            return []
        rows.append({"method": method, "tasks": i + 1, "mean": sum(seen) / len(seen)})
    return rows


def _spreads(method: str, run: Run) -> list[charts.Row]:
    """Return quantiles of the entries of each task's update, over all modules."""
    import torch

    rows: list[charts.Row] = []
    for stage, (_, added, _, _) in enumerate(run.updates(), start=1):
        entries = torch.cat([update.dense().flatten() for update in added.values()]).float()
        entries = entries[:: -(-len(entries) // MOST_ENTRIES)]
        values = torch.quantile(entries, torch.tensor(SHARES)).tolist()
        rows.append({"method": method, "tasks": stage, **{f"q{k}": value for k, value in enumerate(values)}})
    return rows


def _boxes(rows: Sequence[charts.Row], names: Sequence[str]) -> altair.FacetChart:
    alt = charts.alt()
    colours = alt.Scale(domain=list(names), range=[charts.HUES[k % len(charts.HUES)] for k in range(len(names))])
    base = alt.Chart(charts.data(rows)).encode(
        y=alt.Y("method:N", sort=list(names), title=None, axis=None),
        color=alt.Color("method:N", sort=list(names), title=None, scale=colours),
    )
    axis = alt.X("q0:Q", title="entries of ΔW: 5, 25, 50, 75, 95 %")
    span = base.mark_rule(strokeWidth=1.5).encode(x=axis, x2="q4:Q")
    box = base.mark_bar(height=9, opacity=0.8).encode(x="q1:Q", x2="q3:Q")
    rows_of = alt.Row("tasks:O", title="after task", header=alt.Header(labelAngle=0))
    made: altair.FacetChart = (
        (span + box).properties(width=250, height=max(26, 13 * len(names))).facet(row=rows_of, spacing=6)
    )
    return made
