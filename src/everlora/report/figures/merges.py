"""Draws rules by which the updates of tasks are merged, side by side."""

from __future__ import annotations

import json
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
    where="Figure 4 and its comparison with other merging rules",
    title="Rules by which updates are merged",
    needs="runs of inclora+ps-merge, inclora+ties, inclora+dare, inclora+mean-merge, inclora",
)
def merge_rules(paths: Sequence[Path]) -> Figure:
    """Draw overall accuracy and backward transfer by merging rule."""
    table, grouped = compared(paths)
    rows = {row.method: row for row in rows_of(table)}
    alike: dict[str, list[str]] = {}
    for label, runs in grouped.items():
        alike.setdefault(_host(runs[0]), []).append(label)
    labels = max(alike.values(), key=lambda some: len({rule_of(grouped[label][0]) for label in some}))
    found = {f"{rule_of(grouped[label][0])} ({label})": rows[label] for label in labels}
    if len({rule_of(grouped[label][0]) for label in labels}) < 2:
        raise ConfigError("all runs of a method merge by one rule; give some of inclora+ps-merge, inclora+ties, …")
    return side_by_side("merge-rules", "Rules by which updates are merged", found)


def _host(run: ScoredRun) -> str:
    """Return what a run is made of but for its merge: rules are told apart on one method only."""
    plain = run.composition.plain()
    return json.dumps({key: value for key, value in plain.items() if key not in ("name", "merge")})


def rule_of(run: ScoredRun) -> str:
    """Return the rule by which a run merges its tasks' updates."""
    merge = run.composition.plain().get("merge")
    return str(merge["part"]).replace("_", " ") if isinstance(merge, dict) else "sum"
