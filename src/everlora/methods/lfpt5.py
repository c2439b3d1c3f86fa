"""LFPT5: A Unified Framework for Lifelong Few-shot Language Learning based on Prompt Tuning of T5. Qin and Joty, 2022.

https://arxiv.org/abs/2110.07298. One prompt learns every task in turn, behind the text, and learns to write each
task's rows, too. Before a new task the model writes a few rows of every earlier one, which are learned again, and on
which answers stay near those before:

    input = [x ; P],    L = (1 − κ)(L_task + η L_writing) + κ Σ KL(p_prev ‖ p)

    symbol      here                                           shape
    P           prompt                                         (m, e)
    L_writing   from a task's cue: text, separator, label
    p_prev      answers with the prompt of the task before     (n, v)
    η, κ, m     eta, kappa, length

Invariants: KL and its row weight act on rows that the model wrote alone, and the first task has neither; KL has no
gradient while the prompt is unchanged; the base model is untouched. Of earlier tasks their names, labels and
instructions are stored, no row. The prompt starts from the mean embeddings of a phrase, the task's name and its
labels, then from tokens drawn among the 5000 most frequent; later tasks start from the prompt as it is. The authors
train T5 v1.1 large, adapted to language modelling, with Adafactor at a learning rate of 0.5 and a weight decay of
1e-5, for hundreds of epochs on 16 rows per class: ours is 3e-2 where no rate is named. Pitfalls: a prompt of 300
tokens takes their room from the texts; a plain T5 is a weak base for prompts; a model that writes no rows rehearses
nothing. How many of the written texts were rows is in each task's COMMIT as ``written_rows``.

What we do differently (tests/unit/test_prompts.py for the formula, tests/contract/test_lfpt5.py for whole runs):
- a task's cue is a short text of known tokens; the authors' code adds a token to the vocabulary, and its row in the
  frozen embeddings is drawn and never trained (a test sees the base untouched);
- rows to be answered and rows to be written are in one shuffled set, each with the weight that makes an epoch minimise
  the formula; so the split of a batch changes nothing;
- KL is on the answers' tokens, divided like the task's loss by the number of answer tokens;
- decoding is greedy like every method's here, not a beam of 4 with a repetition penalty of 2.5; the last state counts,
  not the best on written validation rows;
- on decoders the prompt is behind the question and in front of the answer.

Composition: a form of its own that writes its own rows to rehearse, so no other replay joins it.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import TEXT_ANSWERS, method
from everlora.parts.forms_prompt import Prompt
from everlora.parts.pseudo import PromptDivergence, PseudoSamples

PHRASE = "answer the question about this text"


@method(
    "lfpt5",
    title="LFPT5: one soft prompt that writes pseudo-samples of its earlier tasks",
    paper="Qin and Joty 2022, arXiv:2110.07298",
    stores="m e for the prompt, constant; written rows are made anew for every task",
    cost="m more tokens per sequence, as many rows again to be written; answers of the former prompt on written rows",
    families=TEXT_ANSWERS,
)
def lfpt5(
    *,
    length: Annotated[int, Default("m = 300 is that of the authors' script.")] = 300,
    eta: Annotated[float, Default("η = 0.25 is that of the authors' script.")] = 0.25,
    kappa: Annotated[float, Default("κ = 0.01 is that of the authors' script; their code's default is 0.05.")] = 0.01,
    per_class: Annotated[int, Default("2 rows per class is that of the authors' script.")] = 2,
    tries: Annotated[int, Default("64 texts per task is our choice.", ours=True)] = 64,
    top_k: Annotated[int, Default("Sampling among 64 tokens is that of the authors' script.")] = 64,
    text_length: Annotated[int, Default("128 tokens is that of the authors' script.")] = 128,
) -> Method:
    """Build LFPT5: ``length`` is m; ``tries`` texts are written per earlier task, of up to ``text_length`` tokens.

    >>> [part.name for part in lfpt5(length=20).parts()]
    ['prompt_divergence', 'pseudo_samples']

    Raises:
        ConfigError: a count below 1, or a weight out of range.
    """
    part = PseudoSamples(eta=eta, kappa=kappa, per_class=per_class, tries=tries, top_k=top_k, length=text_length)
    # Whatever a rehearsed row adds to the loss is weighted by 1 − κ.
    outputs = (PromptDivergence(strength=kappa / (1 - kappa)),) if kappa else ()
    return Method(
        name="lfpt5",
        adapter=Prompt(length=length, phrase=PHRASE),
        consolidator=Consolidator(rule="continue"),
        rehearsal=part,
        outputs=outputs,
    )
