"""Progressive Prompts: Continual Learning for Language Models. Razdaibiedina et al., ICLR 2023.

https://arxiv.org/abs/2301.12314. Every task learns a prompt of its own, which is put in front of those of all earlier
tasks; these do not change:

    input of task t = [P_t, P_{t−1}, …, P_1, x],   only P_t gets a gradient

    symbol   here                    shape
    P_t      prompt, of task t       (m, e)
    m        length                  number

Invariants: task j is answered with [P_j, …, P_1], nothing that it uses changes again, so a[i][j] = a[j][j] and BWT = 0
exactly; base and earlier prompts do not change. Pitfalls: it needs the task id of a row, so never rank it with methods
that need none; a sequence grows by m per task, until texts have no room.

``mlp=800`` trains P_t through a residual network of that width, P + W₂ relu(W₁ P), which is folded into the prompt
when the task ends. The paper trains with AdamW, a learning rate of 0.3 and a decay of 1e-5 for 10 epochs; ours is 3e-2
where no rate is named (LoRA's 1e-4 leaves a prompt where it is).

What we do differently (tests/unit/test_prompts.py, tests/contract/test_prompted.py):
- texts are cut to what the context leaves beside the prompts of all tasks, before anything is put in; the public code
  cuts behind, so that a text loses t·m tokens and maybe its end marker (a test reads the last token);
- prompts are next to the text and positions are counted without padding, so neighbours in a batch change no answer;
- the network's last layer starts at 0 and it has no layer norm, so that a prompt starts as the tokens it was drawn
  from; it is no part of what is stored;
- the last state counts, not the best on a validation split.

A task's folder holds its own prompt; answers need those of the earlier folders, too.

Composition: a form of its own, stored per task, that no task changes again, so nothing needs to join it.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.parts.forms_prompt import PromptChain


@method(
    "progprompt",
    title="Progressive Prompts: a prompt per task in front of the earlier ones, chosen by task id",
    paper="Razdaibiedina et al. 2023, arXiv:2301.12314",
    stores="m e per task",
    cost="t m more tokens per sequence",
    aliases=("progressive-prompts",),
)
def progprompt(
    *,
    length: Annotated[int, Default("m = 10 is that of the authors' script.")] = 10,
    mlp: Annotated[
        int, Default("0 trains the prompt itself, without a network; 800 is the paper's width.", ours=True)
    ] = 0,
) -> Method:
    """Build Progressive Prompts: ``length`` is m, ``mlp`` the width of the network around it.

    >>> progprompt(length=5).task_id_at_inference
    True

    Raises:
        ConfigError: ``length`` is below 1.
    """
    return Method(
        name="progprompt", adapter=PromptChain(length=length, mlp=mlp), consolidator=Consolidator(rule="keep")
    )
