"""ELLA: Efficient Lifelong Learning for Adapters in Large Language Models. Das Biswas et al., arXiv:2601.02232.

Forgetting does not come from all overlap with the past but from overlap with its high-energy directions, so overlap
is penalised by its energy, entry by entry:

    L = L_task + λ Σ_modules ‖ΔW_t ⊙ E‖²_F,   ΔW_t = s B_t A_t,   W_past = Σ_{k<t} ΔW_k,   E = |W_past|

    symbol   here                                       shape
    ΔW_t     LowRank.dense()                            (o, i)
    W_past   Past.total(site)                           (o, i)
    λ, E     lam, energy (raw | rms | max)

For the quadratic surrogate around a free step G, ½‖D − G‖² + (λ/2)‖D ⊙ E‖², the minimiser is the anisotropic
shrinkage D_ij = G_ij / (1 + λ E_ij²): `everlora.parts.penalties.shrink`.

λ is not in the paper's slides. ``energy=rms`` divides E by its root mean square per module, which frees λ from the
size of the weights, the scale s and the number of tasks.
"""

from __future__ import annotations

from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.methods.inclora import inclora
from everlora.parts.penalties import Energy, EnergyOverlap


@method(
    "ella",
    title="ELLA: keep off the high-energy directions of the past, reuse the rest",
    paper="Das Biswas et al. 2026, arXiv:2601.02232",
    stores="r(o+i) per adapted matrix and task",
)
def ella(*, lam: float = 0.3, energy: Energy = "rms") -> Method:
    """Build ELLA."""
    return compose(inclora(), Method(name="", penalties=(EnergyOverlap(lam=lam, energy=energy),))).named("ella")
