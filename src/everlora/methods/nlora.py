"""N-LoRA: Is Parameter Collision Hindering Continual Learning in LLMs? Yang et al., COLING 2025.

https://arxiv.org/abs/2410.10179. Two tasks collide where both have changed an entry. Sparse updates collide seldom,
and what does not collide is orthogonal as well, while orthogonal updates may collide everywhere:

    L = L_task + λ Σ_modules ‖B_t A_t‖₁,   W = W0 + Σ ΔW_k

    symbol    here                                     shape
    B_t A_t   LowRank.up @ LowRank.A, without s        (o, i)
    λ         lam

Invariants: the gradients, with S = sign(B A): Bᵀ S for A and S Aᵀ for B; both are 0 where a task starts (B = 0). The
penalty does not depend on the past, so it acts on the first task as well; ``lam=0`` is IncLoRA. Pitfalls: AdamW seldom
makes an entry exactly 0, so updates are small rather than sparse; with too large a λ the adapter collapses to 0 (a
warning says so).

The authors' scripts have λ = 0.4 for orders 1 to 3, 0.4 and 1.2 for the tasks of order 4, 0.55 for order 5 and 1.8 for
order 6, for models of their size: the norm is a sum over all entries, so λ depends on o · i, and on a small model 0.4
lets nothing be learned (docs/results.md). The default, ``lam=auto``, finds the λ that reaches a share of the gradient
(`everlora.core.roles.AutoStrength`) instead. ``lam=budget`` finds one by what earlier tasks are predicted to lose
(`everlora.core.roles.Budget`), and so is 0 on the first task.

What we do differently:
- the published code takes the norm of A B, an (r, r) matrix that exists only where o = i and says nothing about which
  entries of ΔW are zero; ``form=code`` is that, refused elsewhere. The gradient of ``form=paper`` is that of autograd
  for ‖B A‖₁ (tests/unit/test_nlora.py);
- LoRA's scale s is not in the norm, as in the code: multiply λ by s to have it in.

Composition: one penalty on IncLoRA; other penalties, transforms and merges join it (``n-lora+ps-merge``).
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default, Search
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.methods._options import PerModule, RhoOption
from everlora.methods.inclora import inclora
from everlora.parts.kronecker import predictor
from everlora.parts.sparsity import L1Form, Sparsity
from everlora.parts.strengths import StrengthOption, read_strength


@method(
    "n-lora",
    title="N-LoRA: sparse updates, which do not collide",
    paper="Yang et al. 2024, arXiv:2410.10179",
    stores="r(o+i) per adapted matrix and task",
    cost="6oir + 2oi operations per adapted matrix and step",
)
def nlora(
    *,
    lam: Annotated[
        StrengthOption,
        Default(
            "λ = 0.4 of the authors' scripts for orders 1 to 3 stops learning on small models; ``auto`` finds one by "
            "its share of the gradient.",
            ours=True,
        ),
        Search(4e-5, 4e-4, 4e-3),
    ] = "auto",
    rho: RhoOption = None,
    per_module: PerModule = False,
    form: Annotated[
        L1Form, Default("``paper`` is the formula of the paper, which is defined for every shape.")
    ] = "paper",
) -> Method:
    """Build N-LoRA.

    >>> nlora(rho=0.1).penalties[0].lam.rho
    0.1

    Raises:
        ConfigError: ``rho`` or ``per_module`` beside a fixed ``lam``.
    """
    pull = Sparsity(lam=read_strength(lam, rho, per_module=per_module), form=form)
    return compose(inclora(), Method(name="", penalties=(pull, *predictor(pull.lam)))).named("n-lora")
