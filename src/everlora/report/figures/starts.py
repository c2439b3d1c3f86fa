"""Draws LB-CL's two parts, each by itself and both: how a new task starts, and what it may change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import compared, rows_of
from everlora.report.swept import side_by_side

PARTS = {
    "nlnb-cl": "neither (nlnb-cl)",
    "l-cl": "start from old triplets (l-cl)",
    "b-cl": "learn off the old span (b-cl)",
    "lb-cl": "both (lb-cl)",
}


@figure(
    "starts",
    paper="LB-CL",
    where="Ablation Study: L-CL, B-CL, NLNB-CL, LB-CL",
    title="What the start and the projection do",
    needs="runs of lb-cl, l-cl, b-cl and nlnb-cl",
)
def starts(paths: Sequence[Path]) -> Figure:
    """Draw the four combinations of LB-CL's parts side by side."""
    table, grouped = compared(paths)
    rows = {row.method: row for row in rows_of(table)}
    found = {
        title: next(rows[label] for label, runs in grouped.items() if runs[0].composition.name == name)
        for name, title in PARTS.items()
        if any(runs[0].composition.name == name for runs in grouped.values())
    }
    if len(found) < 2:
        raise ConfigError(f"give runs of at least two of {', '.join(PARTS)}")
    return side_by_side("starts", "What the start and the projection do", found)
