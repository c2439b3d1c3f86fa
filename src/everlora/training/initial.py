"""Starts an adapter from the past and a few rows of the new task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from everlora.adapters import AdapterBackend
from everlora.core.roles import NO_EVIDENCE, Evidence, Initialiser, NeedsEvidence, State
from everlora.core.updates import LowRank, LowRankUpdates
from everlora.models.families import Family
from everlora.training.evidence import observe
from everlora.training.stages import Stage


def initialise(
    part: Initialiser,
    stage: Stage,
    model: nn.Module,
    family: Family,
    backend: AdapterBackend,
    seed: int,
    *,
    updates: Sequence[LowRankUpdates],
    known: Mapping[str, State],
) -> None:
    """Write what ``part`` makes of the earlier tasks' ``updates``, and of what it remembers, into the adapter."""
    # What was drawn is shown to the part: it may change one factor and leave the other as PEFT has it.
    fresh = cast(LowRankUpdates, backend.extract())
    names = part.covers(tuple(fresh))
    started: dict[str, LowRank] = {}

    def start(name: str, seen: Evidence) -> None:
        started[name] = part.start(fresh[name], [one[name] for one in updates], seen, known.get(name))

    evidence: Mapping[str, Evidence] = {}
    if isinstance(part, NeedsEvidence):
        evidence = observe(part, stage, model, family, backend, seed, only=names, take=start)
    for name in names:
        if name not in started:
            start(name, evidence.get(name, NO_EVIDENCE))
    backend.set_values(started)
