"""Pulls towards where earlier tasks ended, weighed by the curvature of their losses in Kronecker factors.

The functions first, the part that carries its settings second; see `everlora.parts.penalties` for the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import (
    NO_EVIDENCE,
    BoundsMemoryError,
    Budget,
    Evidence,
    EvidenceKind,
    HasMemory,
    Needs,
    NeedsEvidence,
    PenaltyGradient,
    PredictsRise,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import LowRank, precise
from everlora.parts import factor_stores
from everlora.parts.factor_stores import FactorStore
from everlora.parts.penalties import exact

LEFT, RIGHT = "left.", "right."
"""Beginnings of the names under which the two factors are remembered."""
SUMMED = "error"
"""What a store records of its own rounding, which adds up from task to task."""


@torch.no_grad()
def kronecker_rise(
    U: Tensor, V: Tensor, scale: float, left: State, right: State, trace: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ω = ½ tr(Dᵀ L D R) / tr L with D = scale · U V, and its gradient with respect to U and V.

    It is ½ vec(D)ᵀ F vec(D) for F = R ⊗ L / tr L, the Kronecker approximation of the Fisher information that has its
    trace: the rise of the mean loss of the rows that F was measured on, to second order. With P = L U and Q = V R:

        Ω = scale² / 2 · ⟨Uᵀ P, (Q Vᵀ)ᵀ⟩ / tr L,   ∂Ω/∂U = scale² P (Q Vᵀ) / tr L,   ∂Ω/∂V = scale² (Uᵀ P) Q / tr L

    Args:
        U: (..., o, k).
        V: (..., k, i).
        scale: part of D.
        left: L (o, o) as `everlora.parts.factor_stores` keeps it.
        right: R (i, i), kept likewise.
        trace: tr L, (...).

    Returns:
        Ω (...), ∂Ω/∂U (..., o, k), ∂Ω/∂V (..., k, i).
    """
    U, V, trace = exact(U, V, trace)
    P, Q = factor_stores.times(left, U), factor_stores.times(right, V.mT).mT
    inner, outer = U.mT @ P, Q @ V.mT
    # Where nothing was measured both factors are 0, and so is Ω.
    weight = scale**2 / trace.clamp_min(torch.finfo(trace.dtype).tiny)
    # Summed in fp64: the terms are of both signs, and their sum is small where the update avoids what is curved.
    value = weight / 2 * precise(inner * outer).sum((-2, -1)).to(U.dtype)
    weight = weight[..., None, None]
    return value, weight * (P @ outer), weight * (inner @ Q)


@dataclass(frozen=True, kw_only=True)
class KroneckerCurvature(WeightPenalty, HasMemory, NeedsEvidence, PredictsRise, BoundsMemoryError):
    """Adds λ ½ tr(ΔWᵀ L ΔW R) / tr L, L and R summed over earlier tasks: their predicted loss, in nats.

    Attributes:
        lam: λ; with 0 it only predicts, for the budget of another penalty.
        samples: rows of a finished task on which its curvature is measured.
        store: how each factor is kept (`everlora.parts.factor_stores`).
        store_rank: rank of ``low-rank`` and ``diagonal``.
    """

    name: ClassVar[str] = "kronecker_curvature"
    by_module: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(cumulative_memory=True)
    evidence: ClassVar[EvidenceKind] = "curvature"
    lam: Strength = 1.0
    samples: int = 32
    store: FactorStore = "full"
    store_rank: int = 32

    def __post_init__(self) -> None:
        for option in ("samples", "store_rank"):
            if getattr(self, option) < 1:
                raise ConfigError(f"{option} of {self.name!r} must be at least 1, not {getattr(self, option)}")

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if not before.memory:
            return None
        # How inexact the store is, is for whoever reads the memory; no step needs it.
        state = {key: tensor for key, tensor in before.memory.items() if not key.endswith(SUMMED)}
        if before.start is not None:
            start = before.start.absorb_scale()
            state |= {"start.A": start.A, "start.B": start.B}
        return state

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        left, right = _of(state, LEFT), _of(state, RIGHT)
        up, A = exact(live.up, live.A)
        if "start.A" not in state:
            value, on_up, on_A = kronecker_rise(up, A, live.scale, left, right, state["trace"])
            return PenaltyGradient.through(live, value, on_A, on_up)
        # D = s B A − start is one product of twice the rank; only its first half moves.
        U = torch.cat([live.scale * up, -state["start.B"]], -1)
        V = torch.cat([A, state["start.A"]], -2)
        value, on_U, on_V = kronecker_rise(U, V, 1.0, left, right, state["trace"])
        r = live.rank
        return PenaltyGradient.through(live, value, on_V[..., :r, :], live.scale * on_U[..., :r])

    def earlier_tasks(self, state: State) -> int:
        # The same in every module, of which several are stacked here.
        return int(state["tasks"].max())

    def remember(self, update: LowRank, memory: State, seen: Evidence = NO_EVIDENCE) -> State:
        """Return both factors, their trace and the number of tasks, summed over the tasks so far."""
        (out, into), found = update.shape, seen.curvature_roots or seen.curvature
        left = found.left if found else factor_stores.nothing(out, self.root_columns(out))
        right = found.right if found else factor_stores.nothing(into, self.root_columns(into))
        trace = left.diagonal().sum().reshape(()) if isinstance(left, Tensor) else left.trace
        tasks = torch.ones((), dtype=torch.int32)
        before = {LEFT: _of(memory, LEFT), RIGHT: _of(memory, RIGHT)}
        if memory:
            left, right = factor_stores.plus(left, before[LEFT]), factor_stores.plus(right, before[RIGHT])
            trace, tasks = trace + memory["trace"], tasks + memory["tasks"]
        state: State = {"trace": trace, "tasks": tasks}
        for side, matrix in ((LEFT, left), (RIGHT, right)):
            kept = factor_stores.encode(matrix, self.store, self.store_rank)
            if SUMMED in kept and SUMMED in before[side]:
                kept[SUMMED] = kept[SUMMED] + before[side][SUMMED]
            state |= {side + key: tensor for key, tensor in kept.items()}
        return state

    def root_columns(self, n: int) -> int | None:
        return factor_stores.root_columns(self.store, n, self.store_rank)

    def error_bound(self, memory: State) -> tuple[float, float] | None:
        """Return a bound of ‖F − F̂‖_F and ‖F̂‖_F, for F̂ = R̂ ⊗ L̂ / tr L̂.

        With factors that are off by at most l and r, R ⊗ L is by at most ‖R̂‖ l + r ‖L̂‖ + r l.
        """
        sides = [_of(memory, side) for side in (LEFT, RIGHT)]
        if not any(SUMMED in side for side in sides):
            return None
        (L, R), trace = (factor_stores.norm(side) for side in sides), float(memory["trace"])
        lost, lost_right = (float(side.get(SUMMED, torch.zeros(1))) for side in sides)
        if not trace:
            return 0.0, 0.0
        return (R * lost + lost_right * L + lost_right * lost) / trace, R * L / trace

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        return 8 + sum(factor_stores.size(self.store, n, self.store_rank) for n in (out, into))


def predictor(strength: Strength) -> tuple[KroneckerCurvature, ...]:
    """Return the parts that a penalty of this strength needs: a prediction, if it has a budget.

    >>> predictor(0.3), len(predictor(Budget(nats=1e-3)))
    ((), 1)
    """
    return (KroneckerCurvature(lam=0.0),) if isinstance(strength, Budget) else ()


def _of(state: State, side: str) -> State:
    """Return what is stored of one of the two factors."""
    return {key.removeprefix(side): tensor for key, tensor in state.items() if key.startswith(side)}
