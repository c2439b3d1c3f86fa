"""Draws overall accuracy over the number of rows by which LB-CL chooses its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import ScoredRun
from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import compared
from everlora.report.swept import swept


@figure(
    "seed-samples",
    paper="LB-CL",
    where="How Many Seed Samples: 1, 2, 4, 8, 16, 32, 64",
    title="Overall accuracy over the rows that choose the start",
    needs='runs of "lb-cl(samples=1)", "lb-cl(samples=2)", …',
)
def seed_samples(paths: Sequence[Path]) -> Figure:
    """Draw the overall accuracy of LB-CL over ``samples``, with intervals."""
    table, grouped = compared(paths)
    at = {
        label: (runs[0].composition.name, float(samples))
        for label, runs in grouped.items()
        if (samples := _samples(runs[0])) is not None
    }
    if len({samples for _, samples in at.values()}) < 2:
        raise ConfigError('no two runs differ in the samples of lb-cl; make some of "lb-cl(samples=1)", …')
    return swept("seed-samples", "Overall accuracy over the rows that choose the start", "samples", table, at)


def _samples(run: ScoredRun) -> int | None:
    start = run.composition.plain().get("initialiser")
    found = start.get("samples") if isinstance(start, dict) else None
    return found if isinstance(found, int) else None
