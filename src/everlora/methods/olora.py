"""O-LoRA: Orthogonal Subspace Learning for Language Model Continual Learning. Wang et al., Findings of EMNLP 2023.

Learn each task in a low-rank subspace orthogonal to those of the earlier tasks:

    L = L_task + λ₁ Σ_modules Σ_ab |(A_past A_tᵀ)_ab| + λ₂ Σ_modules (‖A_t‖_F + ‖B_t‖_F)

    symbol   here                              shape
    A_past   [A_1; …; A_{t−1}]                 (R, i)
    A_t      the live adapter's A              (r, i)
    λ₁, λ₂   lam, norm_lam

This is the form of the authors' code, which all published logs use (down-projections, absolute entries); the paper
writes the squared entries of the up-projections: ``side=B, norm=l2sq``. ``norm=cos`` brings rows to unit length and
so removes the trivial way out, (cA, B/c) with c → 0, which keeps the function and takes the penalty to zero.

What we do differently: the penalty enters once per optimiser step, whatever the accumulation; the past is folded,
so its activations see no dropout; clipping acts on the sum of all gradients.

Default λ₁ = 0.5: orders 1-3 of the authors' scripts.
"""

from __future__ import annotations

from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.core.roles import WeightPenalty
from everlora.methods.inclora import inclora
from everlora.parts.penalties import FactorNorm, Norm, Orthogonality, Side


@method(
    "o-lora",
    title="O-LoRA: new adapters orthogonal to the old ones",
    paper="Wang et al. 2023, arXiv:2310.14152",
    stores="r(o+i) per adapted matrix and task",
    cost="4Rri operations per adapted matrix, R = r(t−1)",
)
def olora(*, lam: float = 0.5, norm_lam: float = 0.0, side: Side = "A", norm: Norm = "l1") -> Method:
    """Build O-LoRA: ``lam`` is λ₁, ``norm_lam`` λ₂."""
    parts: tuple[WeightPenalty, ...] = (Orthogonality(lam=lam, side=side, norm=norm),)
    if norm_lam:
        parts += (FactorNorm(lam=norm_lam),)
    return compose(inclora(), Method(name="", penalties=parts)).named("o-lora")
