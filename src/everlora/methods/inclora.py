"""IncLoRA: a fresh adapter per task on top of the frozen sum of all earlier ones.

    W = W0 + Σ_{k<t} ΔW_k + ΔW_t,   ΔW_k = s B_k A_k;   A_t Kaiming-uniform, B_t = 0

Invariants: the model at the start of a task is exactly the model at the end of the one before, and what answers is
W0 plus the sum of the tasks' updates. The past is folded into the
weights in fp32 before training, so the cost of a step does not grow with t.

Pitfalls: nothing protects the past, and what is kept grows with every task.

What we do differently (tests/contract/test_folding.py): O-LoRA's code runs the frozen past and the new adapter through
one dropout mask, so old knowledge is dropped out while the new is learned; folding leaves the past whole.
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
    """Build IncLoRA."""
    return Method(name="inclora", adapter=Adapter(policy="new"), consolidator=Consolidator(rule="sum"))
