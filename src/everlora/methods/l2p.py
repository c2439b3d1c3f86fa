"""L2P: Learning to Prompt for Continual Learning. Wang et al., CVPR 2022.

https://arxiv.org/abs/2112.08654. The model stays as it is; what is learned is a pool of prompts, and which of them an
example selects:

    q(x)  = mean of the example's own embeddings (its tokens without padding; its patches)
    sel(x) = the N keys κ_m with the largest cos(q(x), κ_m)
    L     = L_task([P_m : m ∈ sel(x); x]) − c Σ_{m ∈ sel(x)} cos(q(x), κ_m)

    symbol   here                    shape
    P_m      prompts                 (M, ℓ, e)
    κ_m      keys                    (M, e)
    M, ℓ     size, length            numbers
    N, c     top, pull               numbers

One pool is trained from task to task, and no task id is needed: similar examples find the same prompts, others leave
them unchanged. On images the usual code takes ``l2p(top=5, pull=0.1)`` and Adam with a learning rate of 1.875e-3.
Prompts need far larger rates than LoRA: 3e-2 where no rate is named.

Invariants: exactly N prompts are selected; gradients reach selected prompts and selected keys only; |pull term| ≤ c N
per row; a sequence grows by N ℓ. Pitfalls: a text loses room for N ℓ tokens; a pool of which the same N are always
selected is one shared prompt, which forgets like SeqLoRA; too small a learning rate leaves prompts where they are.

What we do differently (tests/unit/test_prompts.py; tests/contract/test_prompted.py for padding, neighbours, caches):
- keys are learned; TRACE's code derives them once from the first prompts, and they never move (a test sees them move);
- the query is a mean over the question's tokens; TRACE averages over padding, so that answers depend on neighbours;
  the answer, which a decoder reads in the same sequence, is no part of it: nobody has it when answering;
- prompts are next to the text, not in front of the padding on the left, and positions are counted without it;
- labels are unchanged, since the prompts' outputs are dropped; TRACE repeats the first label over the prompts, taking
  it for the one that is ignored;
- the query is made of the embeddings, not of a second pass through the model; for images the paper takes the output at
  [CLS] of such a pass;
- selected prompts are in the pool's order, so that two keys that change ranks change nothing;
- the pull term is averaged like the task's loss: a row weighs with the tokens of its answer, whatever the batch split.

Composition: a form of its own that changes no weight; replay joins it (``l2p+replay``), parts that work on weights do
not.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.parts.forms_prompt import PromptPool


@method(
    "l2p",
    title="L2P: a pool of prompts from which every example draws",
    paper="Wang et al. 2022, arXiv:2112.08654",
    stores="M(ℓ+1)e for the pool, constant",
    cost="N ℓ more tokens per sequence",
    aliases=("prompt-pool", "learning-to-prompt"),
)
def l2p(
    *,
    size: Annotated[int, Default("M = 10 is that of the text form in the TRACE benchmark.")] = 10,
    length: Annotated[int, Default("ℓ = 5 is that of the text form in the TRACE benchmark.")] = 5,
    top: Annotated[int, Default("N = 3 is that of the text form in the TRACE benchmark; for images 5 is usual.")] = 3,
    pull: Annotated[
        float, Default("c = 0.5 is that of the text form in the TRACE benchmark; for images 0.1 is usual.")
    ] = 0.5,
) -> Method:
    """Build L2P: ``size`` is M, ``length`` ℓ, ``top`` N, ``pull`` c.

    >>> l2p(top=5, pull=0.1).adapter.top
    5

    Raises:
        ConfigError: a size below 1, or ``top`` larger than the pool.
    """
    return Method(
        name="l2p",
        adapter=PromptPool(size=size, length=length, top=top, pull=pull),
        consolidator=Consolidator(rule="continue"),
    )
