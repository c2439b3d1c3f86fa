"""Decays the update plainly: the baseline that every penalty must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlora.core.roles import PenaltyGradient, State, Strength, TaskContext, WeightPenalty
from everlora.core.updates import LowRank
from everlora.parts.penalties import exact


@torch.no_grad()
def squared_norm(U: Tensor, V: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return ‖D‖²_F, D = scale · U V, and gradient: scale² ⟨UᵀU, VVᵀ⟩, 2 scale² U (VVᵀ), 2 scale² (UᵀU) V.

    Args:
        U: (..., o, k).
        V: (..., k, i).
        scale: part of D.
    """
    U, V = exact(U, V)
    inner, outer = U.mT @ U, V @ V.mT
    return scale**2 * (inner * outer).sum((-2, -1)), 2 * scale**2 * (U @ outer), 2 * scale**2 * (inner @ V)


@dataclass(frozen=True, kw_only=True)
class UpdateDecay(WeightPenalty):
    """Adds λ ‖ΔW_t‖²_F from the second task on, whatever the past has been.

    Attributes:
        lam: λ, or the share of the gradient that finds it.
    """

    name: ClassVar[str] = "update_decay"
    lam: Strength = 1.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if not before.updates:
            return None
        if before.start is None:
            return {}
        start = before.start.absorb_scale()
        return {"A": start.A, "B": start.B}

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        if not state:
            value, on_up, on_A = squared_norm(live.up, live.A, live.scale)
            return PenaltyGradient.through(live, value, on_A, on_up)
        U, V = torch.cat([live.scale * live.up, -state["B"]], -1), torch.cat([live.A, state["A"]], -2)
        value, on_U, on_V = squared_norm(U, V, 1.0)
        return PenaltyGradient.through(live, value, on_V[..., : live.rank, :], live.scale * on_U[..., : live.rank])
