"""Draws rules by which the updates of tasks are merged, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import ScoredRun
from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import compared, rows_of
from everlora.report.swept import side_by_side


@figure(
    "merge-rules",
    paper="PS-LoRA",
    where="comparison of merging rules",
    title="Rules by which updates are merged",
    needs="runs of inclora+ps-merge, inclora+ties, inclora+dare, inclora+mean-merge, inclora",
)
def merge_rules(paths: Sequence[Path]) -> Figure:
    """Draw overall accuracy and backward transfer by merging rule."""
    table, grouped = compared(paths)
    rows = {row.method: row for row in rows_of(table)}
    found = {f"{rule_of(runs[0])} ({label})": rows[label] for label, runs in grouped.items()}
    if len({rule_of(runs[0]) for runs in grouped.values()}) < 2:
        raise ConfigError("all runs merge by one rule; give some of inclora+ps-merge, inclora+ties, …")
    return side_by_side("merge-rules", "Rules by which updates are merged", found)


def rule_of(run: ScoredRun) -> str:
    """Return the rule by which a run merges its tasks' updates."""
    merge = run.composition.plain().get("merge")
    return str(merge["part"]).replace("_", " ") if isinstance(merge, dict) else "sum"
