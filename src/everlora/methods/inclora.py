"""IncLoRA: a fresh adapter per task on top of the frozen sum of all earlier ones. A baseline of the papers' tables.

Each task learns an update of its own, and what answers is the base model plus all of them. Most methods here are this
one with a penalty, a transform or a merge.

    W = W0 + Σ_{k<t} ΔW_k + ΔW_t,   ΔW_k = s B_k A_k;   A_t Kaiming-uniform, B_t = 0

    symbol      here               shape
    A_k, B_k    LowRank.A, .B      (r, i), (o, r)
    s           LowRank.scale      alpha / r

Invariants: the model at the start of a task is exactly the model at the end of the one before, and what answers is W0
plus the sum of the tasks' updates. The past is folded into the weights in fp32 before training, so the cost of a step
does not grow with t. Pitfalls: nothing protects the past, and what is stored grows with every task.

What we do differently (tests/contract/test_folding.py): O-LoRA's code runs the frozen past and the new adapter through
one dropout mask, so old knowledge is dropped out while the new is learned; a folded past sees no dropout.

Composition: no parts; it is the base of O-LoRA, ELLA, N-LoRA, PS-LoRA, InfLoRA, LB-CL and the merges.
"""

from __future__ import annotations

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.method import Method
from everlora.core.registry import method


@method(
    "inclora",
    title="Incremental LoRA: a fresh adapter per task, the past folded into the weights",
    paper="baseline (LB-CL, results table)",
    stores="r(o+i) per adapted matrix and task",
    cost="nothing",
)
def inclora() -> Method:
    """Build IncLoRA.

    >>> inclora().policy
    'new + folded: a fresh adapter per task on the folded sum of the past'
    """
    return Method(name="inclora", adapter=Adapter(policy="new"), consolidator=Consolidator(rule="sum"))
