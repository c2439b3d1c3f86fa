"""Reference systems of every table: nothing learned, every task by itself, all tasks at once.

They are no methods against forgetting but the rows that others are compared with.

    zero-shot   the base model as it is
    per-task    one adapter per task, each from W0; the task id chooses among them at inference, so BWT = 0
    mtl         one adapter on the shuffled union of all training sets

    symbol   here                                       shape
    W0       the base model's weights                   as in the model
    BWT      backward transfer of the accuracy matrix   percentage points

Invariants: no task changes what per-task answers on another; mtl on one task is per-task on it. Pitfalls: per-task
needs the task id and is no rival of methods that do not; ``mixing=proportional`` weighs large sets most.

``mixing=proportional`` shows every row once, so that large sets weigh most. ``mixing=equal`` shows every task equally
often: a row of each in turn, smaller sets from their beginning again, which makes an epoch of T tasks T · max n rows
long. Tasks then weigh alike by rows, and not yet in the loss, which is still the mean over a batch's answer tokens: of
two tasks the one with the longer answers weighs more. The Progressive Prompts code adds up one batch's mean per task.

mtl sees all data at once; it is a reference, not an upper bound: ProgPrompt exceeds it on fifteen tasks in the
published table (LB-CL, results table). O-LoRA's own MTL row is full fine-tuning (O-LoRA repository, issue 31), here
``mode=full``, which needs a smaller learning rate: `everlora.methods.seqft`.

What we do differently: nothing that is known; the papers do not say how they mix tasks.

Composition: zero-shot and mtl do not learn task after task, so that hardly any part joins them.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method, Mixing
from everlora.core.registry import method
from everlora.methods._options import Mode
from everlora.parts.forms_full import FullWeights

Mixed = Annotated[
    Mixing, Default("``proportional`` shows every row once, as plain multi-task training does.", ours=True)
]


@method(
    "zero-shot",
    title="The base model, untouched",
    paper="reference",
    stores="nothing",
    cost="nothing",
    aliases=("base",),
)
def zero_shot() -> Method:
    """Build the zero-shot reference.

    >>> zero_shot().policy
    'none'
    """
    return Method(name="zero-shot", regime="frozen")


@method(
    "per-task",
    title="One adapter per task, chosen by task id",
    paper="reference (PerTaskFT)",
    stores="r(o+i) per adapted matrix and task",
    cost="nothing",
    aliases=("pertaskft", "single"),
)
def per_task(*, mode: Mode = "lora") -> Method:
    """Build the one-adapter-per-task reference, or with ``mode=full`` a whole model per task.

    >>> per_task().group
    'task id'
    """
    adapter = Adapter(policy="new") if mode == "lora" else FullWeights(policy="new")
    return Method(name="per-task", adapter=adapter, consolidator=Consolidator(rule="keep"))


@method(
    "mtl",
    title="Multi-task learning: one adapter on all tasks at once",
    paper="reference (MTL)",
    stores="all training data, then r(o+i) per adapted matrix",
    cost="nothing",
    replay=True,
    aliases=("multitask", "joint"),
)
def mtl(*, mode: Mode = "lora", mixing: Mixed = "proportional") -> Method:
    """Build the multi-task reference; ``mode=full`` trains all weights.

    >>> mtl(mixing="equal").regime
    'joint'
    """
    adapter = Adapter() if mode == "lora" else FullWeights()
    rule = Consolidator(rule="continue")
    return Method(name="mtl", regime="joint", adapter=adapter, consolidator=rule, mixing=mixing)
