"""Draws LB-CL's two ways of starting from earlier tasks: with their singular values, and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import ScoredRun
from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import compared, rows_of
from everlora.report.swept import HOW, side_by_side

TITLES = {"with": "full triplets (U, Σ, V)", "without": "only U and V"}


@figure(
    "start-strategies",
    paper="LB-CL",
    where="Initialization Strategies: with Σ and without, beside O-LoRA",
    title="Starts with singular values and without",
    needs='runs of "lb-cl(sigma=with)", "lb-cl(sigma=without)" and o-lora, over several orders',
)
def start_strategies(paths: Sequence[Path]) -> Figure:
    """Draw overall accuracy and backward transfer of both starts, with every order in the table."""
    table, grouped = compared(paths)
    rows = {row.method: row for row in rows_of(table)}
    named = {label: strategy(runs[0]) for label, runs in grouped.items()}
    if len({one for one in named.values() if one is not None}) < 2:
        raise ConfigError('give runs of both starts: "lb-cl(sigma=with)" and "lb-cl(sigma=without)"')
    found = {f"{TITLES[one]}, {label}" if one else label: rows[label] for label, one in named.items()}
    how = f"{HOW} With Σ the second task starts at twice what the first has learned; without, at the first itself."
    return side_by_side("start-strategies", "Starts with singular values and without", found, how)


def strategy(run: ScoredRun) -> str | None:
    """Return whether a run starts with singular values, ``with`` or ``without``; None where it blends no triplets."""
    start = run.composition.plain().get("initialiser")
    found = start.get("sigma") if isinstance(start, dict) else None
    return found if isinstance(found, str) else None
