"""ELLA: Efficient Lifelong Learning for Adapters in Large Language Models. Das Biswas et al., 2026.

https://arxiv.org/abs/2601.02232. Forgetting does not come from all overlap with the past but from overlap with its
high-energy directions, so overlap is penalised by its energy, entry by entry:

    L = L_task + λ Σ_modules ‖ΔW_t ⊙ E‖²_F,   ΔW_t = s B_t A_t,   W_past = Σ_{k<t} ΔW_k,   E = |W_past|

    symbol   here                                       shape
    ΔW_t     LowRank.dense()                            (o, i)
    W_past   UpdateHistory.total(module)                (o, i)
    λ, E     lam, energy (raw | rms | max)

For the quadratic surrogate around a free step G, ½‖D − G‖² + (λ/2)‖D ⊙ E‖², the minimiser is the anisotropic shrinkage
D_ij = G_ij / (1 + λ E_ij²): `everlora.parts.penalties.shrink`.

Invariants: the gradient is 0 on the first task, and at the start of any (B = 0); signs of W_past and the gauge (cA,
B/c) change nothing; ⟨A, ∂Ω/∂A⟩ = ⟨B, ∂Ω/∂B⟩ = 2Ω; ``lam=0`` is IncLoRA, with ``policy=continue`` SeqLoRA, bit for bit.
Pitfalls: raw entries of 1e-3 make Ω so small that λ of order 1 does nothing; W_past grows, so that a fixed λ on raw
entries becomes stricter from task to task; too large a λ shrinks B instead of turning it (compare ‖ΔW_t‖ in
modules.jsonl with IncLoRA's).

``lam=auto`` finds the λ that brings the penalty to the share ``rho`` of the task's gradient
(`everlora.core.roles.AutoStrength`), one for all modules or, with ``per_module``, one for each; what was found is
written to each task's COMMIT. ``energy=rms`` divides E by its root mean square per module, which frees a fixed λ from
the size of the weights, the scale s and the number of tasks; under ``auto`` the energies differ only in how modules
weigh against one another.

ρ = 0.1 is the largest share that cost SmolLM2-135M nothing on dev rows (four built-in tasks of 24 steps, seeds 7 and
8: OA 65.1; 65.7 for ρ = 0.03, 62.5 for 0.3, whose updates begin to collapse; IncLoRA 65.2). On the stages of
docs/results.md it is told from 0.03 neither where much is forgotten (SmolLM2) nor where little is.

What we do differently: nothing that is known; the energies ``rms`` and ``max``, ``policy=continue`` and the stores are
additions. ``policy=continue`` trains one adapter from task to task; ΔW_t is then its change since the task began, and
W_past the adapter at that point. ``store`` says in what form W_past is stored (`everlora.parts.stores`): as the
factors of the tasks; dense; as its best approximation of rank ``store_rank`` (8); or in 8 bits. How far off that is,
`everlora status` measures.

Composition: one penalty on IncLoRA (or SeqLoRA), so that other penalties, transforms and merges join it:
``ella+migu``, ``ella+replay``, ``ella+ties``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from everlora.core.defaults import Default, Search
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods._options import PerModule
from everlora.methods.inclora import inclora
from everlora.methods.seqlora import seqlora
from everlora.parts.kronecker import KroneckerCurvature, predictor
from everlora.parts.penalties import Energy, EnergyOverlap
from everlora.parts.stores import Store
from everlora.parts.strengths import StrengthOption, read_strength

RHO = 0.1

RhoOption = Annotated[
    float | None,
    Default(
        "It goes with ``lam=auto`` alone, which without it looks for ρ = 0.1, the largest share that cost "
        "SmolLM2-135M nothing on dev rows.",
        ours=True,
    ),
]


@method(
    "ella",
    title="ELLA: keep off the high-energy directions of the past, reuse the rest",
    paper="Das Biswas et al. 2026, arXiv:2601.02232",
    stores="r(o+i) per adapted matrix and task; store=dense 4oi bytes more, svd 4ρ(o+i)+4, int8 oi+4o, constant",
    cost="6oir + 5oi operations per adapted matrix",
)
def ella(
    *,
    lam: Annotated[
        StrengthOption,
        Default("λ is not in the paper's slides, so ``auto`` finds one.", ours=True),
    ] = "auto",
    rho: Annotated[RhoOption, Search(0.03, 0.1, 0.3)] = None,
    per_module: PerModule = False,
    energy: Annotated[
        Energy | Literal["kron"], Default("``rms`` is the default because a fixed λ then means something.", ours=True)
    ] = "rms",
    policy: Annotated[
        Literal["new", "continue"],
        Default("The formula has a fresh adapter for every task; ``continue`` forgot as SeqLoRA does."),
    ] = "new",
    store: Annotated[
        Store, Default("``factors`` are the tasks' own adapters, which are stored in any case.", ours=True)
    ] = "factors",
    store_rank: Annotated[
        int | None, Default("It is the rank of ``store=svd`` alone, which without it is 8.", ours=True)
    ] = None,
) -> Method:
    """Build ELLA.

    >>> ella(lam=0.3).penalties[0].lam
    0.3
    >>> ella(policy="continue").policy
    'continue: one adapter for all tasks'

    Raises:
        ConfigError: an option that belongs to another value of ``lam``, ``energy`` or ``store``.
    """
    if store_rank is not None and store != "svd":
        raise ConfigError(f"store_rank is the rank of store=svd; with store={store} there is none")
    found = read_strength(lam, rho, per_module=per_module, share=RHO)
    base = inclora() if policy == "new" else seqlora()
    if energy == "kron":
        if store != "factors":
            raise ConfigError(f"energy=kron does not use W_past; leave out store={store}, which says how it is kept")
        return replace(base, name="ella", penalties=(KroneckerCurvature(lam=found),))
    pull = EnergyOverlap(lam=found, energy=energy, store=store, store_rank=8 if store_rank is None else store_rank)
    return replace(base, name="ella", penalties=(pull, *predictor(found)))
