"""Pulls quadratically towards where earlier tasks ended, by how much they need each parameter (EWC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import (
    NO_EVIDENCE,
    Evidence,
    EvidenceKind,
    HasMemory,
    Needs,
    NeedsEvidence,
    PenaltyGradient,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import ModuleUpdate
from everlora.parts.penalties import exact

Form = Literal["online", "per-task"]
FISHER, ANCHOR = "fisher.", "anchor."
"""Beginnings of the names under which a live tensor's weighing and its anchor are remembered."""


@torch.no_grad()
def quadratic(theta: Tensor, anchor: Tensor, fisher: Tensor) -> tuple[Tensor, Tensor]:
    """Return ½ Σ F (θ − θ*)² over all but the first dimension, (L,), and its gradient F (θ − θ*), (L, ...)."""
    theta, anchor, fisher = exact(theta, anchor, fisher)
    gradient = fisher * (theta - anchor)
    return (gradient * (theta - anchor)).flatten(1).sum(1) / 2, gradient


@torch.no_grad()
def pooled(F: Tensor, m: Tensor, F_new: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return one quadratic for two: F (θ − m)² + F_new (θ − θ_new)² = F' (θ − m')² + const, elementwise.

    F' = F + F_new, m' = m + F_new / F' · (θ_new − m); where neither weighs anything, m' = θ_new.
    """
    total = F + F_new
    step = torch.where(total > 0, F_new / total, 1)
    return total, m + step * (theta - m)


@dataclass(frozen=True, kw_only=True)
class Quadratic(WeightPenalty, HasMemory, NeedsEvidence):
    """Pulls as EWC: λ · ½ Σ_j F_j (θ_j − θ*_j)², over whatever is trained on and on.

    Attributes:
        lam: λ.
        samples: rows of a finished task on which its Fisher information is measured.
        form: ``online``, F ← γ F + F_new around the newest θ; or ``per-task``, every task's own quadratic.
        gamma: γ, for ``online``.
    """

    name: ClassVar[str] = "quadratic"
    by_module: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(continued_adapter=True, any_form=True, cumulative_memory=True)
    evidence: ClassVar[EvidenceKind] = "fisher"
    lam: Strength = 400.0
    samples: int = 200
    form: Form = "online"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples of {self.name!r} must be at least 1, not {self.samples}")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma of {self.name!r} must lie between 0 and 1, not {self.gamma}")

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if before.start is None or not before.memory:
            return None
        state = dict(before.memory)
        for key, where in before.start.tensors.items():
            # A copy: the tensor itself is about to be trained.
            state.setdefault(ANCHOR + key, where.detach().clone())
        return state

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        value, gradient = torch.zeros(()), {}
        for key, theta in live.tensors.items():
            own, gradient[key] = quadratic(theta, state[ANCHOR + key], state[FISHER + key])
            value = own if value.ndim == 0 else value + own
        return PenaltyGradient(value=value, gradient=gradient)

    def remember(self, update: ModuleUpdate, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        """Return F by live tensor, and with ``per-task`` the anchor m of the pooled quadratics.

        With ``online`` none is needed: what is trained on and on is its own anchor.
        """
        fisher = evidence.fisher or {}
        if not memory:
            memory = {FISHER + key: torch.zeros_like(F) for key, F in fisher.items()}
        state: State = {}
        for key, F in fisher.items():
            old, theta = memory[FISHER + key], update.tensors[key]
            if self.form == "online":
                state[FISHER + key] = self.gamma * old + F
            else:
                state[FISHER + key], state[ANCHOR + key] = pooled(old, memory.get(ANCHOR + key, theta), F, theta)
        return state

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        return (1 if self.form == "online" else 2) * 4 * rank * (out + into)
