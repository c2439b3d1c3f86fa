"""SeqLoRA: one adapter, trained on and on. The naive baseline of ELLA's table, and what most people do today.

    W = W0 + s B A,   (A, B) of task t starts where task t−1 left them

    symbol  here               shape
    A, B    LowRank.A, .B      (r, i), (o, r)
    s       LowRank.scale      alpha / r

Invariants: the optimiser starts afresh with every task; rank(ΔW) ≤ r for ever. Pitfalls: nothing protects the past.
Published figures lie far apart (order 1: 39.5 in ELLA's table, 62.9 in the O-LoRA repository's log). Where answers are
written, their form is forgotten first: an old question gets a label of the newest task, so that old scores fall below
chance; where they are chosen among a task's own labels, this does not show.
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
    """Build SeqLoRA."""
    return Method(name="seqlora", adapter=Adapter(policy="continue"), consolidator=Consolidator(rule="continue"))
