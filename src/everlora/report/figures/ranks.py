"""Draws overall accuracy over the rank of the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import compared
from everlora.report.swept import swept


@figure(
    "rank-sweep",
    paper="ELLA, LB-CL",
    where="Impact of LoRA rank (ELLA); Impact of Rank r (LB-CL): r = 2, 4, 8, 16",
    title="Overall accuracy over the rank",
    needs="runs that differ in --lora-r",
)
def rank_sweep(paths: Sequence[Path]) -> Figure:
    """Draw the overall accuracy of each method over the rank of its adapters, with intervals."""
    table, grouped = compared(paths)
    at = {label: (runs[0].composition.name, float(runs[0].settings.lora.r)) for label, runs in grouped.items()}
    if len({rank for _, rank in at.values()}) < 2:
        raise ConfigError("all runs are of one rank; make some with another --lora-r")
    return swept("rank-sweep", "Overall accuracy over the rank", "rank", table, at)
