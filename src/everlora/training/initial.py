"""An adapter starts from the past, in the light of a few rows of the new task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from everlora.adapters import Mount
from everlora.core.roles import Initialiser, State
from everlora.core.updates import Sites
from everlora.models.families import Family
from everlora.training.evidence import NOTHING, observe
from everlora.training.stages import Stage


def initialise(
    part: Initialiser,
    stage: Stage,
    model: nn.Module,
    family: Family,
    mount: Mount,
    seed: int,
    *,
    updates: Sequence[Sites],
    known: Mapping[str, State],
) -> None:
    """Write what ``part`` makes of the earlier tasks' ``updates`` (and of what it remembers) into the open mount."""
    fresh = cast(Sites, mount.extract())
    names = part.covers(tuple(fresh))
    seen = observe(part, stage, model, family, mount, seed, only=names)
    mount.write(
        {
            name: part.start(fresh[name], [one[name] for one in updates], seen[name].get("", NOTHING), known.get(name))
            for name in names
        }
    )
