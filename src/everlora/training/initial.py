"""An adapter starts from the past, in the light of a few rows of the new task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from everlora.adapters import AdapterBackend
from everlora.core.roles import Initialiser, State
from everlora.core.updates import LowRankUpdates
from everlora.models.families import Family
from everlora.training.evidence import NOTHING, observe
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
    """Write what ``part`` makes of the earlier tasks' ``updates`` (and of what it remembers) into the open mount."""
    fresh = cast(LowRankUpdates, backend.extract())
    names = part.covers(tuple(fresh))
    seen = observe(part, stage, model, family, backend, seed, only=names)
    backend.set_values(
        {
            name: part.start(fresh[name], [one[name] for one in updates], seen[name].get("", NOTHING), known.get(name))
            for name in names
        }
    )
