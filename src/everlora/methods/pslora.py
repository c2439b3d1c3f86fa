"""PS-LoRA: Resolving Conflicts in Lifelong Learning via Aligning Updates in Subspaces. 2025.

https://arxiv.org/abs/2512.08960. What hurts earlier tasks is an update that flips the sign of theirs, or grows where
it meets them. Such entries are made expensive while a task is learned, and of the finished updates the larger
survives, entry by entry:

    L = L_task + λ Σ_modules ‖(1 − tanh(η ΔW_t) ⊙ tanh(η W_past)) ⊙ ΔW_t‖²_F
    M_t = M(ΔW_t, M_{t−1}),   M(a, b) = a if |a| ≥ |b| else b;   answers come from W0 + M_t

    symbol   here                                      shape
    ΔW_t     LowRank.dense()                           (o, i)
    W_past   Σ_{k<t} ΔW_k, or M_{t−1} (loss_past)      (o, i)
    η        sharpness; rms is 1 / rms(W_past)         one per module
    λ        lam

Invariants: 0 ≤ Ψ ≤ 4 ‖ΔW_t‖²; value and gradient are 0 at B = 0; flipping the signs of ΔW_t and W_past together, and
the gauge (cA, B/c), change nothing; M(a, a) = a, and M has the entry of largest magnitude, the newest at ties.

An entry aligned with the past costs nothing in the limit η → ∞, an opposed one 4 ΔW², and one where the past is 0
costs ΔW²: plain decay. With the full gradient the penalty on very large aligned entries vanishes (η|W_past| > 1.2);
``detach_weight`` lets it shrink them always.

What it is worth and when is measured in docs/ps-lora.md. A fixed η of order 1 to 10 leaves the sign part inert at
entries of 1e-3.

Pitfalls: the newest task, too, is answered by weights that it was not trained with; of two aligned updates the merge
has only the larger; a fixed η means something else at another rank, scale or learning rate.

What we do differently, where the paper's text leaves room (no code is public): a task is trained on W0 + Σ ΔW and its
signs are compared with that sum; the merge answers after every task, so even the newest task is answered by weights it
was not trained with (``infer=sum`` shows what that costs); on the first task, where the formula would be plain decay,
the penalty is 0.

Composition: a penalty and a merge on IncLoRA. ``ps-merge`` is the merge alone, for any method that sums adapters:
``o-lora+ps-merge``. The merge of low-rank updates has full rank: `everlora export` writes it exactly as a model, or as
an adapter of a chosen rank with the error of the truncation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from everlora.core.defaults import Default, Search
from everlora.core.errors import ConfigError
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.core.roles import View
from everlora.methods._options import Infer, PerModule, RhoOption, TrainPast
from everlora.methods.inclora import inclora
from everlora.parts.kronecker import predictor
from everlora.parts.merges import LargestMagnitude
from everlora.parts.signs import SignConflict
from everlora.parts.strengths import StrengthOption, read_strength

STORES = "r(o+i) per adapted matrix and task; the merge is made of them"


@method(
    "ps-lora",
    title="PS-LoRA: no flipped signs against the past, and the larger of two entries survives",
    paper="arXiv:2512.08960",
    stores=STORES,
    cost="6oir + 5oi operations and oi tanh per adapted matrix; per task a merge of oi entries of t updates",
    aliases=("pslora",),
)
def pslora(
    *,
    lam: Annotated[
        StrengthOption,
        Default("λ is not in the available sources, so that ``auto`` looks for one by its share.", ours=True),
    ] = "auto",
    rho: Annotated[RhoOption, Search(0.03, 0.1, 0.3)] = None,
    per_module: PerModule = False,
    sharpness: Annotated[
        float | Literal["rms"],
        Default(
            "η is not in the available sources; ``rms`` fits it to the size of the weights, 1 / rms(W_past).",
            ours=True,
        ),
    ] = "rms",
    detach_weight: Annotated[bool, Default("The formula has the full gradient.")] = False,
    first_task_decay: Annotated[
        bool, Default("The formula would be plain decay on the first task, which has no past to protect.", ours=True)
    ] = False,
    merge: Annotated[bool, Default("The merge is part of the method; without it only the loss is left.")] = True,
    loss_past: Annotated[
        View,
        Default("Signs are compared with the plain sum of earlier updates; the text leaves this open.", ours=True),
    ] = "sum",
    train_past: TrainPast = "sum",
    infer: Infer = "merged",
) -> Method:
    """Build PS-LoRA; ``merge=no`` leaves the stability loss alone on summed updates.

    >>> [part.name for part in pslora().parts()]
    ['sign_conflict', 'largest_magnitude']

    Raises:
        ConfigError: a view of the merge with ``merge=no``, or ``rho`` beside a fixed ``lam``.
    """
    if not merge and (train_past, infer) != ("sum", "merged"):
        raise ConfigError("train_past and infer choose a view of the merge; with merge=no there is none")
    loss = SignConflict(
        lam=read_strength(lam, rho, per_module=per_module),
        sharpness=sharpness,
        detach_weight=detach_weight,
        past=loss_past,
        first_task_decay=first_task_decay,
    )
    larger = LargestMagnitude(train=train_past, infer=infer) if merge else None
    return compose(inclora(), Method(name="", penalties=(loss, *predictor(loss.lam)), merge=larger)).named("ps-lora")


@method(
    "ps-merge",
    title="PS-LoRA's merge alone, for any method that sums adapters: o-lora+ps-merge",
    paper="arXiv:2512.08960",
    stores=STORES,
    cost="nothing; per task a merge of oi entries of t updates",
    rows=(),
)
def ps_merge(*, train_past: TrainPast = "sum", infer: Infer = "merged") -> Method:
    """Build the merge alone, to be joined to another method.

    >>> ps_merge(infer="sum").merge.infer
    'sum'
    """
    return compose(inclora(), Method(name="", merge=LargestMagnitude(train=train_past, infer=infer))).named("ps-merge")
