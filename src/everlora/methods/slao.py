"""SLAO: Merge before Forget, a single LoRA for continual learning via continual merging. Preprint, 2025.

One adapter is trained on, and another one answers: their A is the same, their B is a running merge.

    task t starts at   A = Qᵀ,  (A_{t−1})ᵀ = Q R with diag R > 0,   B = B_{t−1} as it was trained
    after it           A_merge = A_t,   B_merge ← B_merge + (B_t − B_merge) / √t

    symbol    here                             shape
    A_t, B_t  what was trained                 (r, i), (o, r)
    B_merge   the adapter that answers: its B  (o, r)
    Q         orthonormal rows, A Aᵀ = I       (i, r)

The weight of a new task falls as 1, .707, .577, .5: slower than in a mean, since later B contain the earlier ones from
which they started. Memory is constant: the adapter, and the last B that was trained, from which the next task starts.
Invariants: after the first task the merge is the adapter itself; every later task starts at A Aᵀ = I.

Pitfalls: the start keeps the span of A's rows but neither its lengths nor the function: a task does not start where
the one before ended, and the loss begins higher.

What we do differently: nothing that is known; no code is public that we have seen. The orthogonal start makes A's rows
longer than PEFT's (1 instead of 1/√3), so the learning rate acts differently from the second task on.

Composition: an initialiser on SeqLoRA; penalties on answers and replay join it (``slao+lwf``).
"""

from __future__ import annotations

from dataclasses import replace

from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods.seqlora import seqlora
from everlora.parts.slow import SlowMerge


@method(
    "slao",
    title="SLAO: one adapter with an orthogonal start, answered for by its running merge",
    paper="Merge before Forget, preprint 2025",
    stores="r(o+i) per adapted matrix, and ro for the B that was trained, constant",
    cost="nothing per step; one QR of (i, r) per adapted matrix and task",
    aliases=("merge-before-forget",),
)
def slao() -> Method:
    """Build SLAO.

    >>> slao().initialiser.name
    'slow_merge'
    """
    return replace(seqlora(), name="slao", initialiser=SlowMerge())
