"""Weight penalties in closed form: a pure function first, the part that carries its settings second.

All functions work on stacks: a leading dimension ``L`` of modules of one shape goes through untouched. They compute in
fp32 whatever comes in, since products of entries of 1e-3 vanish in fp16, and never build an autograd graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.roles import Pull, State
from everlora.core.sites import LowRank, precise

Energy = Literal["raw", "rms", "max"]


def _exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to fp32, or leave them in fp64."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


@torch.no_grad()
def energy_overlap(A: Tensor, B: Tensor, scale: float, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ω = ‖ΔW ⊙ E‖²_F with ΔW = scale · B A, and its gradient.

    With D = ΔW: ∂Ω/∂D = 2 D ⊙ E², Π = scale · ∂Ω/∂D, ∂Ω/∂B = Π Aᵀ, ∂Ω/∂A = Bᵀ Π.

    Args:
        A: (..., r, i).
        B: (..., o, r).
        scale: part of ΔW.
        squared: E², (..., o, i).

    Returns:
        Ω (...), ∂Ω/∂A (..., r, i), ∂Ω/∂B (..., o, r).
    """
    A, B, squared = _exact(A, B, squared)
    D = scale * (B @ A)
    weighted = D * squared
    # Row sums first: one long fp32 sum over (o, i) loses digits at 4096 x 4096.
    value = (D * weighted).sum(-1)
    value = precise(value).sum(-1)
    pi = weighted.mul_(2 * scale)
    return value.to(A.dtype), B.mT @ pi, pi @ A.mT


def energy(total: Tensor, scaling: Energy) -> Tensor:
    """E = |W_past|, as it is or divided per module by its rms or its largest entry; (..., o, i)."""
    (E,) = _exact(total.abs())
    if scaling == "rms":
        return E / E.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(E.dtype).tiny)
    if scaling == "max":
        return E / E.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(E.dtype).tiny)
    return E


def shrink(G: Tensor, E: Tensor, lam: float) -> Tensor:
    """The minimiser of ½‖D − G‖² + (λ/2)‖D ⊙ E‖²: D*_ij = G_ij / (1 + λ E_ij²) (ELLA, Formal Characterization)."""
    return G / (1 + lam * E.square())


@dataclass(frozen=True, kw_only=True)
class EnergyOverlap:
    """ELLA's pull: λ ‖ΔW_t ⊙ E‖², E the energy of the past."""

    name: ClassVar[str] = "energy_overlap"
    lam: float = 1.0
    energy: Energy = "raw"

    @property
    def strength(self) -> float:
        return self.lam

    def prepare(self, past: LowRank | None) -> State | None:
        return None if past is None else {"squared": energy(past.dense(), self.energy).square()}

    def pull(self, live: LowRank, state: State) -> Pull:
        value, A, B = energy_overlap(live.A, live.B, live.scale, state["squared"])
        return Pull(value=self.lam * value, A=self.lam * A, B=self.lam * B)


Norm = Literal["l1", "l2sq", "cos"]
Side = Literal["A", "B"]


@torch.no_grad()
def orthogonality(new: Tensor, past: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """How far the rows of ``new`` are from orthogonal to the rows of ``past``, and the gradient for ``new``.

    With X = new · pastᵀ: ``l1`` Σ|X| (gradient sign(X) · past), ``l2sq`` Σ X² (gradient 2 X · past); ``cos`` is
    ``l1`` after both have been brought to unit rows, which takes away the freedom to shrink ``new`` instead of
    turning it.

    Args:
        new: (..., r, n).
        past: (..., R, n).
        norm: the form.

    Returns:
        The penalty (...) and its gradient (..., r, n).
    """
    new, past = _exact(new, past)
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
class Orthogonality:
    """O-LoRA's pull: λ₁ times the overlap of the new factor with all past ones."""

    name: ClassVar[str] = "orthogonality"
    lam: float = 0.5
    side: Side = "A"
    norm: Norm = "l1"

    @property
    def strength(self) -> float:
        return self.lam

    def prepare(self, past: LowRank | None) -> State | None:
        if past is None:
            return None
        return {"past": (past.A if self.side == "A" else past.B.mT).contiguous()}

    def pull(self, live: LowRank, state: State) -> Pull:
        new = live.A if self.side == "A" else live.B.mT
        # The past's B carries LoRA's scale, one for all tasks; the paper's factors are without it.
        past = state["past"] if self.side == "A" else state["past"] / live.scale
        value, gradient = orthogonality(new, past, self.norm)
        gradient = self.lam * gradient
        on_A = gradient if self.side == "A" else torch.zeros_like(live.A)
        on_B = gradient.mT if self.side == "B" else torch.zeros_like(live.B)
        return Pull(value=self.lam * value, A=on_A, B=on_B)


@dataclass(frozen=True, kw_only=True)
class FactorNorm:
    """O-LoRA's λ₂ (‖A‖_F + ‖B‖_F), norms not squared; acts on the first task too."""

    name: ClassVar[str] = "factor_norm"
    lam: float = 0.0

    @property
    def strength(self) -> float:
        return self.lam

    def prepare(self, past: LowRank | None) -> State | None:
        return {}

    @torch.no_grad()
    def pull(self, live: LowRank, state: State) -> Pull:
        A, B = _exact(live.A, live.B)
        nA, nB = A.norm(dim=(-2, -1), keepdim=True), B.norm(dim=(-2, -1), keepdim=True)
        # The norm has no gradient at 0, where B starts; 0 is a subgradient.
        tiny = torch.finfo(A.dtype).tiny
        value = self.lam * (nA + nB).squeeze((-2, -1))
        return Pull(value=value, A=self.lam * A / nA.clamp_min(tiny), B=self.lam * B / nB.clamp_min(tiny))
