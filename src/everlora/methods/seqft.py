"""SeqFT: sequential full fine-tuning. A baseline of the papers' tables.

All weights are trained on every task in turn; nothing protects the past:

    W of task t starts where task t−1 left it; L = L_task over all weights

    symbol  here                                        shape
    W       Weights.tensors, by module                  as in the model

Invariants: the optimiser starts afresh with every task, and the first one is full fine-tuning on it. What is stored
does not grow with the number of tasks; on disk, every task's folder and the run folder itself are whole models
(``from_pretrained(run)``).

Pitfalls: the learning rate decides the row. Published tables say 28.5 (Standard) and 7.4 (long) for this baseline
(ELLA, results table), the O-LoRA repository's own log of order 1 ends at 67.8, and its authors report that with a
small enough rate full fine-tuning barely forgets on the four tasks (O-LoRA repository, issue 24). Rates in use: 1e-3
on the first task and 1e-4 after it (O-LoRA repository), 1e-4 throughout (MIGU repository); sweep 1e-5 … 1e-3 and
publish the rate with the row. ``freeze_embeddings`` trains all weights but those of the embeddings. Where no rate is
named, full weights are trained at 1e-4.

What we do differently (tests/contract/test_full.py):

- weights are fp32 while they are trained, also of a bf16 model: an AdamW step of 1e-4 on a weight of 0.05 is less than
  half a unit in the last place of bf16, so that in bf16 most steps would do nothing. bf16 arithmetic is to be had with
  the Trainer's own ``bf16`` argument, which leaves the weights in fp32.
- one rate for all tasks, not a tenth of it from the second task on: a rate that knows how many tasks came before is a
  method of its own against forgetting.

Composition: no parts; EWC on all weights is a penalty on it, replay and MIGU join it (``seqft+replay``,
``seqft+migu``).
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.parts.forms_full import FullWeights


@method(
    "seqft",
    title="Sequential full fine-tuning: all weights trained on every task in turn",
    paper="baseline (ELLA and O-LoRA, results tables)",
    stores="the model, constant",
    cost="gradients and AdamW moments of all weights",
    aliases=("full-ft", "finetune"),
)
def seqft(
    *, freeze_embeddings: Annotated[bool, Default("Full fine-tuning trains the embeddings, too.")] = False
) -> Method:
    """Build SeqFT.

    >>> seqft().adapter.whole_model
    True
    """
    return Method(
        name="seqft",
        adapter=FullWeights(freeze_embeddings=freeze_embeddings),
        consolidator=Consolidator(rule="continue"),
    )
