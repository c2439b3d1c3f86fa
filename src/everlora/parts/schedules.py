"""Changes strengths from task to task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from everlora.core.errors import ConfigError
from everlora.core.roles import PenaltyGradient, State, TaskContext
from everlora.core.updates import LowRank
from everlora.parts.penalties import FactorNorm, Orthogonality

Factors = tuple[float, ...]


def factors(written: str) -> Factors:
    """Return ``0/1/1/10`` as numbers.

    Raises:
        ConfigError: anything else, or a number below 0.
    """
    try:
        found = tuple(float(word) for word in written.split("/"))
    except ValueError:
        found = ()
    if not found or not all(0 <= factor < float("inf") for factor in found):
        raise ConfigError(f"a schedule is a factor of at least 0 per task, as in 0/1/1/10, not {written!r}")
    return found


def in_turn(schedule: Factors, before: TaskContext) -> float:
    """Return the factor of the task that begins; the last one goes on."""
    return schedule[min(len(before.updates), len(schedule) - 1)]


def with_factor(state: State | None, factor: float) -> State | None:
    """Return constants that carry the factor; None where it leaves nothing."""
    return None if state is None or factor == 0 else {**state, "factor": torch.tensor(factor)}


def times(pull: PenaltyGradient, factor: torch.Tensor) -> PenaltyGradient:
    """Return a pull, stronger by ``factor``."""
    return PenaltyGradient(value=factor * pull.value, gradient={name: factor * g for name, g in pull.gradient.items()})


@dataclass(frozen=True, kw_only=True)
class OrthogonalityInTurn(Orthogonality):
    """Is `Orthogonality` whose λ₁ is multiplied by a factor per task."""

    name: ClassVar[str] = "orthogonality_in_turn"
    schedule: Factors = (1.0,)

    def prepare(self, before: TaskContext) -> State | None:
        return with_factor(super().prepare(before), in_turn(self.schedule, before))

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        return times(super().value_and_grad(live, state), state["factor"])


@dataclass(frozen=True, kw_only=True)
class FactorNormInTurn(FactorNorm):
    """Is `FactorNorm` whose λ₂ is multiplied by a factor per task."""

    name: ClassVar[str] = "factor_norm_in_turn"
    schedule: Factors = (1.0,)

    def prepare(self, before: TaskContext) -> State | None:
        return with_factor(super().prepare(before), in_turn(self.schedule, before))

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        return times(super().value_and_grad(live, state), state["factor"])
