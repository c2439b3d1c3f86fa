"""C-LoRA: Continual Diffusion, Smith et al., TMLR 2024, https://arxiv.org/abs/2304.06027.

Entries of a weight that earlier tasks have changed much are expensive to change again. ELLA later took up the same
penalty, on entries that are normalised per module.

    L = L_task + λ Σ_modules ‖ |Σ_{k<t} ΔW_k| ⊙ ΔW_t ‖²_F

    symbol   here                                       shape
    ΔW_t     LowRank.dense()                            (o, i)
    λ        lam

Invariants: those of ELLA: the gradient is 0 on the first task and where B = 0, signs of the past and (cA, B/c) change
nothing, and ``lam=0`` is IncLoRA bit for bit. Pitfalls: the penalty grows with the square of the past, so that a fixed
λ becomes stricter from task to task; too large a one shrinks B instead of turning it. Other methods have the same name
(Controlled LoRA, a routing matrix for continual learning).

What we do differently: the original changes keys and values of a diffusion model's attention, and its tokens; here it
is the loss alone, on whatever layers are adapted.

Composition: `everlora.methods.ella` at its raw energy, equal to it bit for bit (tests/unit/test_nlora.py); it has a
name of its own because its default differs.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods._options import PerModule
from everlora.methods.ella import RhoOption, ella
from everlora.parts.strengths import StrengthOption

LamOption = Annotated[
    StrengthOption,
    Default(
        "λ in that work is many orders above 1, since entries of 1e-3 make the raw norm tiny, and was not verified "
        "here; ``auto`` finds one by its share of the gradient.",
        ours=True,
    ),
]


@method(
    "c-lora",
    title="C-LoRA: entries that the past has used are left alone; ELLA's penalty on raw entries",
    paper="Smith et al. 2023, arXiv:2304.06027",
    stores="r(o+i) per adapted matrix and task",
    cost="6oir + 5oi operations per adapted matrix and step",
)
def clora(*, lam: LamOption = "auto", rho: RhoOption = None, per_module: PerModule = False) -> Method:
    """Build C-LoRA.

    >>> clora(lam=1e6).penalties[0].energy
    'raw'

    Raises:
        ConfigError: ``rho`` or ``per_module`` beside a fixed ``lam``.
    """
    return ella(lam=lam, rho=rho, per_module=per_module, energy="raw").named("c-lora")
