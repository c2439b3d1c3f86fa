"""O-LoRA: Orthogonal Subspace Learning for Language Model Continual Learning. Wang et al., Findings of EMNLP 2023.

https://arxiv.org/abs/2310.14152. Learn each task in a low-rank subspace orthogonal to those of the earlier tasks:

    L = L_task + λ₁ Σ_modules Σ_ab |(A_past A_tᵀ)_ab| + λ₂ Σ_modules (‖A_t‖_F + ‖B_t‖_F)

    symbol   here                              shape
    A_past   [A_1; …; A_{t−1}]                 (R, i)
    A_t      the live adapter's A              (r, i)
    λ₁, λ₂   lam, norm_lam

``side=A, norm=l1`` is the authors' code, which all published logs use (down-projections, absolute entries); the paper
writes the squared entries of the up-projections: ``side=B, norm=l2sq``. ``norm=cos`` brings rows to unit length and so
removes the trivial way out, (cA, B/c) with c → 0, which leaves the function as it is and takes the penalty to zero.

Invariants: on the first task the penalty is 0; later it is 0 exactly where the rows of A_t are orthogonal to those of
all earlier A; λ₁ = λ₂ = 0 is IncLoRA. Pitfalls: (cA, B/c) is that way out; too large a λ₁ stops learning, and the
logged loss of the authors' code contains the penalty. At most ⌊i/r⌋ tasks can be orthogonal to one another.

Orders 1 to 3 of the authors' scripts have λ₁ = 0.5, λ₂ = 0. Order 6 changes them from task to task, which is

    o-lora(lam=0.5, schedule=0/1/1/1/1/1/1/1/1/10/10/10/10/10/10,
           norm_lam=0.1, norm_schedule=0/0/0/0/1/1/3/0/1/0/0/1/0/1/3)

with ``schedule`` and ``norm_schedule``: λ = factor · lam, one factor per task, the last one for all that follow (MNLI,
the third, runs two epochs there). λ₂ is not explained in the paper's text; its norms are not squared, and it acts on
the first task too. The authors advise 0 to 5 for λ₁ and 0 to 0.5 for λ₂.

What we do differently:
- the penalty enters once per optimiser step, whatever the accumulation; the authors' trainer divides the task's loss
  alone by it, so that λ grows with the number of micro-batches (tests/equivalence/test_splits.py);
- the past is folded, so its activations see no dropout;
- clipping acts on the sum of all gradients, as there, but is the same for every number of processes.

Composition: penalties on IncLoRA; other penalties, transforms and merges join it: ``o-lora+migu``,
``o-lora+ps-merge``, ``o-lora+replay``.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default, Search
from everlora.core.errors import ConfigError
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.core.roles import WeightPenalty
from everlora.methods.inclora import inclora
from everlora.parts.penalties import FactorNorm, Norm, Orthogonality, Side
from everlora.parts.schedules import FactorNormInTurn, OrthogonalityInTurn, factors


@method(
    "o-lora",
    title="O-LoRA: new adapters orthogonal to the old ones",
    paper="Wang et al. 2023, arXiv:2310.14152",
    stores="r(o+i) per adapted matrix and task",
    cost="4Rri operations per adapted matrix, R = r(t−1)",
)
def olora(
    *,
    lam: Annotated[
        float, Default("λ₁ = 0.5 is that of the authors' scripts for orders 1 to 3."), Search(0.05, 0.5, 5)
    ] = 0.5,
    norm_lam: Annotated[float, Default("λ₂ = 0 is that of the authors' scripts for orders 1 to 3.")] = 0.0,
    side: Annotated[Side, Default("A is that of the authors' code, which all published logs use.")] = "A",
    norm: Annotated[
        Norm, Default("Absolute entries are those of the authors' code, which all published logs use.")
    ] = "l1",
    schedule: Annotated[
        str | None, Default("λ₁ is the same for all tasks in the authors' scripts for orders 1 to 3.")
    ] = None,
    norm_schedule: Annotated[
        str | None, Default("λ₂ is the same for all tasks in the authors' scripts for orders 1 to 3.")
    ] = None,
) -> Method:
    """Build O-LoRA: ``lam`` is λ₁, ``norm_lam`` λ₂; the schedules are factors of them, one per task, as in 0/1/10.

    >>> [part.name for part in olora(norm_lam=0.1).penalties]
    ['orthogonality', 'factor_norm']

    Raises:
        ConfigError: ``norm_schedule`` without ``norm_lam``, or a schedule that cannot be read.
    """
    if norm_schedule is not None and not norm_lam:
        raise ConfigError("norm_schedule multiplies norm_lam, and norm_lam is 0; set it as well")
    parts: tuple[WeightPenalty, ...] = (
        (Orthogonality(lam=lam, side=side, norm=norm),)
        if schedule is None
        else (OrthogonalityInTurn(lam=lam, side=side, norm=norm, schedule=factors(schedule)),)
    )
    if norm_lam:
        in_turn = norm_schedule and FactorNormInTurn(lam=norm_lam, schedule=factors(norm_schedule))
        parts += (in_turn or FactorNorm(lam=norm_lam),)
    return compose(inclora(), Method(name="", penalties=parts)).named("o-lora")
