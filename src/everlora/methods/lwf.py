"""LwF: learning without forgetting. Li and Hoiem 2016, https://arxiv.org/abs/1606.09282.

Here on one adapter, without old data. On the new task's own inputs the model is held to the answers that it gave when
the task began:

    L = L_task + β τ² KL(p_old ‖ p_new),   p = softmax(z / τ),   mean over the answers' positions

    symbol      here                                            shape
    z_new       logits where the answer's loss is taken         (n, v)
    z_old       the same of the model when the task began       (n, v)
    β, τ        beta, tau

Invariants: on the first task, and where new and old answers agree, the term is 0; per position the gradient with
respect to z_new is β τ (p_new − p_old). The model of the task before is the same model with the former adapter, so
nothing but that copy is stored while a task is learned. Pitfalls: every step costs a second forward pass; only inputs
of the new task are compared, so that what a task far from it needs is not held. Where a head answers, the comparison
is over the labels known before the task (class-incremental LwF), while the task's own loss is over its own labels. In
text all tokens are known from the beginning.

What we do differently, and how we know that it is right (tests/unit/test_lwf.py: the worked example τ² KL = 0.523248
with gradient (−0.5, 0.5), and autograd):

- the old model is the target. TRACE hands its log-softmax in as the prediction and the new model's softmax as the
  target, which is KL(new ‖ old), 0.143841 for 0.130812 in the example, with gradients through the target.
- τ² is there, and the mean is over the answer's positions. TRACE has no τ², sums over prompt and padding, and divides
  by the size of the batch alone.
- old and new logits are of the same rows, in the same step. TRACE looks cached ones up by the batch's number, which is
  wrong once the loader shuffles again.
- cross entropy counts once. EasyCL adds (1−a) CE + a KD to a loss that holds CE already.
- positions are those that predict the answer's tokens. EasyCL masks by labels without shifting them by one.

Composition: a penalty on answers on SeqLoRA; it joins methods that train one LoRA adapter from task to task:
``slao+lwf``, ``ewc+lwf``, ``lwf+replay``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods.seqlora import seqlora
from everlora.parts.distil import Distil


@method(
    "lwf",
    title="LwF: keep the answers that the former model gives on the new task's inputs",
    paper="Li and Hoiem 2016, arXiv:1606.09282",
    stores="r(o+i) per adapted matrix, constant",
    cost="one forward pass of the former model per batch",
)
def lwf(
    *,
    beta: Annotated[float, Default("β = 1 gives the old answers the weight of the new task's loss.", ours=True)] = 1.0,
    tau: Annotated[float, Default("τ = 2 is that of the paper.")] = 2.0,
) -> Method:
    """Build LwF.

    >>> lwf(tau=1.0).outputs[0].tau
    1.0

    Raises:
        ConfigError: ``tau`` is not above 0.
    """
    return replace(seqlora(), name="lwf", outputs=(Distil(beta=beta, tau=tau),))
