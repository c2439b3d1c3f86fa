"""C-LoRA: Continual Diffusion, Smith et al., TMLR 2024. Its forgetting loss is the form that ELLA later took up.

    L = L_task + λ Σ_modules ‖ |Σ_{k<t} ΔW_k| ⊙ ΔW_t ‖²_F

    symbol   here                                       shape
    ΔW_t     LowRank.dense()                            (o, i)
    λ        lam

An alias: `everlora.methods.ella` at its raw energy, equal bit for bit (tests/unit/test_nlora.py), under a name of
its own because its default differs. λ in that work is many orders above 1 (entries of 1e-3 make the raw norm tiny);
that was not verified here, and by default ``lam=auto`` finds one by its share of the gradient, at ELLA's ρ.

Not to be confused with other methods of the same name (Controlled LoRA, a routing matrix for continual learning).

Invariants: those of ELLA: nothing is pulled on the first task nor where B = 0, signs of the past and (cA, B/c) change
nothing, and ``lam=0`` is IncLoRA bit for bit. Pitfalls: the pull grows with the square of the past, so that a fixed λ
becomes stricter from task to task; too large a one shrinks B instead of turning it.

What we do differently: the original changes keys and values of a diffusion model's attention, and its tokens; here
it is the loss alone, on whatever layers are adapted.
"""

from __future__ import annotations

from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods.ella import ella
from everlora.parts.strengths import StrengthOption


@method(
    "c-lora",
    title="C-LoRA: entries that the past has used are left alone; ELLA's pull on raw entries",
    paper="Smith et al. 2023, arXiv:2304.06027",
    stores="r(o+i) per adapted matrix and task",
    cost="6oir + 5oi operations per adapted matrix and step",
)
def clora(*, lam: StrengthOption = "auto", rho: float | None = None, per_module: bool = False) -> Method:
    """Build C-LoRA; ``rho`` and ``per_module`` are for ``lam=auto``."""
    return ella(lam=lam, rho=rho, per_module=per_module, energy="raw").named("c-lora")
