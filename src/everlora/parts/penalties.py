"""Defines weight penalties in closed form: a pure function first, the part with its settings second.

All functions work on stacks: a leading dimension ``L`` of modules of one shape goes through untouched. They compute in
fp32 whatever comes in, since products of entries of 1e-3 vanish in fp16, and never build an autograd graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import (
    NO_EVIDENCE,
    Evidence,
    HasEnergy,
    HasMemory,
    Needs,
    PenaltyGradient,
    ReconstructsPast,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import LowRank, precise
from everlora.kernels import RATE, Found, Problem, keep_factors, solve, use_tiles
from everlora.parts import stores, tiled

Energy = Literal["raw", "rms", "max"]


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to fp32, or leave them in fp64."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


@torch.no_grad()
def energy_overlap(
    A: Tensor, B: Tensor, scale: float, squared: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ω = ‖ΔW ⊙ E‖²_F with ΔW = scale · B A − start, and its gradient.

    With D = ΔW: ∂Ω/∂D = 2 D ⊙ E², Π = scale · ∂Ω/∂D, ∂Ω/∂B = Π Aᵀ, ∂Ω/∂A = Bᵀ Π.

    >>> A, B, E = torch.ones(1, 2), torch.ones(1, 1), torch.tensor([[0.0, 3.0]])
    >>> energy_overlap(A, B, scale=1.0, squared=E.square())
    (tensor(9.), tensor([[ 0., 18.]]), tensor([[18.]]))

    Args:
        A: (..., r, i).
        B: (..., o, r).
        scale: part of ΔW.
        squared: E², (..., o, i).
        start: the adapter's matrix when the task began (policy ``continue``), (..., o, i); None for 0.

    Returns:
        Ω (...), ∂Ω/∂A (..., r, i), ∂Ω/∂B (..., o, r).
    """
    A, B, squared = exact(A, B, squared)
    # One matrix of shape (o, i), changed in place: what takes time are passes over it, and new memory.
    D = (scale * B) @ A
    if start is None:
        pi = D.mul_(squared)
        on_A, on_B = 2 * scale * (B.mT @ pi), 2 * scale * (pi @ A.mT)
        # Ω is a square, so ⟨B, ∂Ω/∂B⟩ = 2 Ω: no pass for the value.
        return (precise(B) * precise(on_B)).sum((-2, -1)).div(2).to(A.dtype), on_A, on_B
    D -= start
    pi = D * squared
    # Row sums first: one long fp32 sum over (o, i) loses digits at 4096 x 4096.
    value = precise(D.mul_(pi).sum(-1)).sum(-1)
    return value.to(A.dtype), 2 * scale * (B.mT @ pi), 2 * scale * (pi @ A.mT)


def energy(total: Tensor, scaling: Energy) -> Tensor:
    """Return E = |W_past|, as it is or divided per module by its rms or its largest entry; (..., o, i).

    >>> energy(torch.tensor([[-2.0, 1.0]]), "max")
    tensor([[1.0000, 0.5000]])
    """
    (E,) = exact(total.abs())
    return E if scaling == "raw" else E / divisor(E, scaling)


def divisor(E: Tensor, scaling: Energy) -> Tensor:
    """Return what `energy` divides |W_past| by, (..., o, i) to (..., 1, 1)."""
    if scaling == "raw":
        return torch.ones_like(E[..., :1, :1])
    found = E.square().mean((-2, -1), keepdim=True).sqrt() if scaling == "rms" else E.amax((-2, -1), keepdim=True)
    return found.clamp_min(torch.finfo(E.dtype).tiny)


def shrink(G: Tensor, E: Tensor, lam: float) -> Tensor:
    """Return D*, the update that ELLA's penalty makes of a step G: D*_ij = G_ij / (1 + λ E_ij²), (..., o, i).

    It minimises ½‖D − G‖² + (λ/2)‖D ⊙ E‖² (ELLA, Formal Characterization): where the past has no energy the step is
    taken as it is, and where it has much the step shrinks towards 0. `interference_bound` says how far D* can meet the
    past.

    >>> shrink(torch.tensor([[1.0, 1.0]]), E=torch.tensor([[0.0, 3.0]]), lam=1.0)
    tensor([[1.0000, 0.1000]])

    Args:
        G: the step that would be taken without a penalty.
        E: the energy of the past, see `energy`.
        lam: λ.
    """
    return G / (1 + lam * E.square())


def interference(D: Tensor, past: Tensor) -> Tensor:
    """Return ⟨D, W_past⟩, (..., o, i) twice to (...): how much an update repeats (> 0) or undoes (< 0) the past.

    >>> interference(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]]))
    tensor(1.)
    """
    return precise(D * past).sum((-2, -1)).to(D.dtype)


def interference_bound(G: Tensor, past: Tensor, E: Tensor, lam: float) -> Tensor:
    """Bound |⟨D*, W_past⟩| for D* = `shrink` (G, E, λ), (...), by ‖G‖_F / (2√λ) · ‖E⁻¹ ⊙ W_past‖_F.

    >>> G, past = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    >>> float(interference(shrink(G, past.abs(), 1.0), past)) <= float(interference_bound(G, past, past.abs(), 1.0))
    True

    Both norms run over the support E ≠ 0, outside of which W_past is 0 and nothing interferes (ELLA, Formal
    Characterization). It follows from |x| / (1 + λx²) ≤ 1 / (2√λ) and Cauchy-Schwarz.
    """
    held = E != 0
    ratio = torch.where(held, past / torch.where(held, E, 1), 0)
    return (G * held).norm(dim=(-2, -1)) / (2 * lam**0.5) * ratio.norm(dim=(-2, -1))


@dataclass(frozen=True, kw_only=True)
class EnergyOverlap(WeightPenalty, HasEnergy, HasMemory, ReconstructsPast):
    """Pulls as ELLA: λ ‖ΔW_t ⊙ E‖², E the energy of the past.

    Attributes:
        lam: λ, or the share of the gradient that finds it.
        energy: what E is divided by, per module.
        store: how W_past is kept from task to task; ``factors`` costs nothing beside the tasks' updates.
        store_rank: rank of ``svd``.
    """

    name: ClassVar[str] = "energy_overlap"
    by_module: ClassVar[bool] = True
    matrices: ClassVar[int] = 2
    lam: Strength = 1.0
    energy: Energy = "raw"
    store: stores.Store = "factors"
    store_rank: int = 8

    def __post_init__(self) -> None:
        if self.store_rank < 1:
            raise ConfigError(f"store_rank of {self.name!r} must be at least 1, not {self.store_rank}")

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if not before.updates:
            return None
        past = before.factors()
        assert past is not None
        if use_tiles(before.device):
            return self._prepare_tiles(before, past)
        total = self.reconstruct(before.memory) if before.memory else past.dense()
        # Squared once a task, and not at every step: the largest tensor that the penalty holds.
        state = {"squared": self.weigh(total).square()}
        return state if before.start is None else {**state, "start": before.start.dense()}

    def _prepare_tiles(self, before: TaskContext, past: LowRank) -> State:
        """Return constants for computing in tiles: W_past, or where its rank is large or a store has it, E² of it."""
        own = type(self).weigh is not EnergyOverlap.weigh  # a part that weighs otherwise does so on matrices
        if before.memory or own or not keep_factors(past.rank):
            total = self.reconstruct(before.memory) if before.memory else past.dense()
            return tiled.constants(before, torch.ones(1), self.weigh(total).square())
        return tiled.constants(before, tiled.of_each(past, lambda W: 1 / divisor(W.abs(), self.energy)), past)

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        if RATE in state:
            return PenaltyGradient.through(live, *solve("energy", tiled.problem(live, state), _plain))
        value, A, B = energy_overlap(live.A, live.up, live.scale, state["squared"], state.get("start"))
        return PenaltyGradient.through(live, value, A, B)

    def weigh(self, total: Tensor) -> Tensor:
        return energy(total, self.energy)

    def remember(self, update: LowRank, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        return stores.add(memory, update, self.store, self.store_rank)

    def reconstruct(self, memory: State) -> Tensor:
        return stores.decode(memory)

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        return stores.size(self.store, out, into, min(self.store_rank, rank * tasks))


def _plain(of: Problem) -> Found:
    """Compute in plain torch what is meant for tiles."""
    squared = of.past if isinstance(of.past, Tensor) else of.W.square()
    return energy_overlap(of.A, of.B, of.scale, squared, None if of.start is None else of.start.dense())


Norm = Literal["l1", "l2sq", "cos"]
Side = Literal["A", "B"]


@torch.no_grad()
def orthogonality(new: Tensor, past: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return how far rows of ``new`` are from orthogonal to rows of ``past``, and the gradient for ``new``.

    With X = new · pastᵀ: ``l1`` Σ|X| (gradient sign(X) · past), ``l2sq`` Σ X² (gradient 2 X · past); ``cos`` is
    ``l1`` after both have been brought to unit rows, which takes away the freedom to shrink ``new`` instead of
    turning it.

    >>> orthogonality(torch.tensor([[1.0, 2.0]]), past=torch.tensor([[0.0, 3.0]]), norm="l1")
    (tensor(6.), tensor([[0., 3.]]))

    Args:
        new: (..., r, n).
        past: (..., R, n).
        norm: the form.

    Returns:
        The penalty (...) and its gradient (..., r, n).
    """
    new, past = exact(new, past)
    if norm == "cos":
        tiny = torch.finfo(new.dtype).tiny
        length = new.norm(dim=-1, keepdim=True).clamp_min(tiny)
        unit = new / length
        value, g = orthogonality(unit, past / past.norm(dim=-1, keepdim=True).clamp_min(tiny), "l1")
        return value, (g - (g * unit).sum(-1, keepdim=True) * unit) / length
    X = new @ past.mT
    if norm == "l1":
        return X.abs().sum((-2, -1)), X.sign() @ past
    return X.square().sum((-2, -1)), 2 * X @ past


@dataclass(frozen=True, kw_only=True)
class Orthogonality(WeightPenalty):
    """Pulls as O-LoRA: λ₁ times the overlap of the new factor with all past ones."""

    name: ClassVar[str] = "orthogonality"
    needs: ClassVar[Needs] = Needs(fresh_adapter=True)
    lam: Strength = 0.5
    side: Side = "A"
    norm: Norm = "l1"

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        past = before.factors()
        if past is None:
            return None
        return {"past": (past.A if self.side == "A" else past.B.mT).contiguous()}

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        new = live.A if self.side == "A" else live.up.mT
        # The past's B carries LoRA's scale, one for all tasks; the paper's factors are without it.
        past = state["past"] if self.side == "A" else state["past"] / live.scale
        value, gradient = orthogonality(new, past, self.norm)
        on_A = gradient if self.side == "A" else torch.zeros_like(live.A)
        on_B = gradient.mT if self.side == "B" else torch.zeros_like(live.B)
        return PenaltyGradient.through(live, value, on_A, on_B)


@dataclass(frozen=True, kw_only=True)
class FactorNorm(WeightPenalty):
    """Adds O-LoRA's λ₂ (‖A‖_F + ‖B‖_F), norms not squared; acts on the first task too."""

    name: ClassVar[str] = "factor_norm"
    lam: Strength = 0.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    @torch.no_grad()
    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        A, B = exact(live.A, live.up)
        nA, nB = A.norm(dim=(-2, -1), keepdim=True), B.norm(dim=(-2, -1), keepdim=True)
        # The norm has no gradient at 0, where B starts; 0 is a subgradient.
        tiny = torch.finfo(A.dtype).tiny
        return PenaltyGradient.through(
            live, (nA + nB).squeeze((-2, -1)), A / nA.clamp_min(tiny), B / nB.clamp_min(tiny)
        )
