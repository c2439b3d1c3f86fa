"""OSF: Sculpting Subspaces, Constrained Full Fine-Tuning in LLMs for Continual Learning. Nayak et al., 2025.

https://arxiv.org/abs/2504.07097. What a weight knows lies in its largest singular directions: these are frozen, and
only the rest is trained, orthogonal to them. After each task the resulting weight is decomposed anew, so what was
learned is frozen in its turn as far as it is large.

    W = U_high S_high V_high + U_low S_low V_low
    ∂U_low ← (I − U_high U_highᵀ) ∂U_low,   ∂V_low ← ∂V_low (I − V_highᵀ V_high)

    symbol                 here                                        shape, m = min(o, i), q = frozen · m
    U_low, S_low, V_low    live tensors of a module                    (o, m − q), (m − q), (m − q, i)
    U_high, V_high         inside PEFT's layer                         (o, q), (q, i)
    W − W0                 ``change`` of a module, all that is stored  (o, i)

This is PEFT's own tuner (`peft.OSFConfig`), which decomposes and projects; we carry the weight from task to task. Its
projection runs in hooks on the parameters, one for each backward pass: linear, so that accumulated gradients are
projected as their sum is, before the norm is clipped.

Invariants: a task starts, but for rounding, where the one before ended; projected gradients are orthogonal to U_high
and V_high. Pitfalls: gradients are projected, steps are not: Adam divides entry by entry, and so leaves the subspace,
as it does in PEFT; with ``--optim sgd`` steps stay in it.

What we do differently (tests/contract/test_osf.py: the decomposition, the projection, where a task starts, bf16):
- PEFT has no second task: its weights are replaced and cannot be unmerged. Here W0 is put back and the next task
  starts from W0 + change in fp32, whether the run was interrupted or not;
- adapted matrices and factors are fp32: in bf16, PEFT would round the factors to bf16, and the decomposition would no
  longer sum to the weight (0.4 % of each entry);
- the run folder holds the change, not PEFT's factors, which fit a weight that nobody else has.

Composition: a form of its own that is trained from task to task; replay joins it (``osf+replay``).
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.parts.forms_osf import OsfAdapter


@method(
    "osf",
    title="OSF: the top singular directions of each weight frozen, the rest trained off them",
    paper="Nayak et al. 2025, arXiv:2504.07097",
    stores="oi per adapted matrix, constant",
    cost="4·tokens·(m−q)(o+i) per adapted matrix, m = min(o, i); an SVD of each per task",
    aliases=("osft",),
)
def osf(*, frozen: Annotated[float, Default("Half of the directions is the default of PEFT.")] = 0.5) -> Method:
    """Build OSF; ``frozen`` is the share of directions that are frozen.

    >>> osf(frozen=0.25).adapter.frozen
    0.25

    Raises:
        ConfigError: ``frozen`` is not between 0 and 1.
    """
    return Method(name="osf", adapter=OsfAdapter(frozen=frozen), consolidator=Consolidator(rule="continue"))
