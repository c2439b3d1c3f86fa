"""SeqLoRA: one adapter that every task trains in turn. A baseline of the papers' tables.

It is what fine-tuning an adapter on one data set after another does; nothing protects the past:

    W = W0 + s B A,   (A, B) of task t starts where task t−1 left them

    symbol  here               shape
    A, B    LowRank.A, .B      (r, i), (o, r)
    s       LowRank.scale      alpha / r

Invariants: the optimiser starts afresh with every task; rank(ΔW) ≤ r for ever. Pitfalls: nothing protects the past.
Published figures lie far apart (order 1: 39.5 in ELLA's table, 62.9 in the O-LoRA repository's log). Where answers are
written, their form is forgotten first: an old question gets a label of the newest task, so that old scores fall below
chance; where they are chosen among a task's own labels, this does not show.

What we do differently: nothing that is known.

Composition: no parts; it is the base of EWC, LwF, MIGU, Recurrent-KIF, SLAO and replay.
"""

from __future__ import annotations

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.method import Method
from everlora.core.registry import method


@method(
    "seqlora",
    title="Sequential LoRA: one adapter trained on every task in turn",
    paper="baseline (ELLA, results table)",
    stores="r(o+i) per adapted matrix, constant",
    cost="nothing",
    aliases=("lora", "naive"),
)
def seqlora() -> Method:
    """Build SeqLoRA.

    >>> seqlora().policy
    'continue: one adapter for all tasks'
    """
    return Method(name="seqlora", adapter=Adapter(policy="continue"), consolidator=Consolidator(rule="continue"))
