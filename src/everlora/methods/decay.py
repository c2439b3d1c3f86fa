"""Decay: plain decay of each task's update, the baseline that every penalty on weights must beat.

No paper's method, and part of many: whatever makes ‖ΔW_t‖ smaller forgets less, wherever the past stands. A penalty
that weighs entries by the past (`everlora.methods.ella`, `everlora.methods.pslora`) is worth its memory only where it
is better than this one at the same share of the gradient.

    L = L_task + λ Σ_modules ‖ΔW_t‖²_F    from the second task on

    symbol   here                                                    shape
    ΔW_t     s B A, or s (B A − B₀ A₀) where one adapter goes on      (o, i)
    λ        lam; by default the share ρ of the gradient finds it

Invariants: on the first task the penalty is 0; value and gradient are 0 at B = 0; the gauge (cA, B/c) changes nothing;
``lam=0`` is IncLoRA. ELLA with an energy of 1 everywhere is this method. Pitfalls: a large share learns little, and
looks like little forgetting; look at learning accuracy beside BWT.

What we do differently: there is no paper to differ from.

Composition: one penalty on IncLoRA, nothing remembered.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default, Search
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.methods._options import PerModule
from everlora.methods.inclora import inclora
from everlora.parts.decay import UpdateDecay
from everlora.parts.kronecker import predictor
from everlora.parts.strengths import StrengthOption, read_strength

RHO = 0.1


@method(
    "decay",
    title="Decay: make each update small, whatever the past (the baseline of every penalty)",
    paper="a baseline of ours",
    stores="r(o+i) per adapted matrix and task",
    cost="4(o+i)r² operations per adapted matrix and step",
    rows=(),
)
def decay(
    *,
    lam: Annotated[StrengthOption, Default("It is found by the share, as ELLA's is.", ours=True)] = "auto",
    rho: Annotated[
        float | None,
        Default(
            "It goes with ``lam=auto`` alone, which without it looks for ρ = 0.1, the share of ELLA, so that the two "
            "differ in nothing but the energy.",
            ours=True,
        ),
        Search(0.03, 0.1, 0.3),
    ] = None,
    per_module: PerModule = False,
) -> Method:
    """Build the baseline.

    >>> decay().penalties[0].lam.rho
    0.1

    Raises:
        ConfigError: ``rho`` or ``per_module`` beside a fixed ``lam``.
    """
    pull = UpdateDecay(lam=read_strength(lam, rho, per_module=per_module, share=RHO))
    return compose(inclora(), Method(name="", penalties=(pull, *predictor(pull.lam)))).named("decay")
