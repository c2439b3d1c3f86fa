"""Recurrent-KIF: Recurrent Knowledge Identification and Fusion. Feng et al., ACL 2025.

https://arxiv.org/abs/2502.17510. New knowledge and old are learned in turn, in short blocks, and fused weight by
weight by what each of them needs.

One adapter is trained from task to task, with a class-balanced memory of 2 % of the earlier rows. From the second task
on, steps come in blocks; θ_b are the weights when a block begins:

    K inner steps on new rows      θ_k,  δ_in  = θ_k − θ_b      after each:  Ī ← β1 Ī + (1−β1) I,   I = |w · ∂L/∂w|
    M outer steps on memory rows   θ_M,  δ_out = θ_M − θ_k                   Ū ← β2 Ū + (1−β2) |I − Ī|
    fusion                         θ   = θ_b + c_in ⊙ δ_in + c_out ⊙ δ_out

A weight is important for the new rows if its Ī Ū of the inner steps exceeds the q-quantile over all trained weights;
for the memory likewise, from averages of its own over the outer steps. (c_in, c_out) = (1, 0) if only the new rows
need it, (0, 1) if only the memory does, (0.4, 0.6) if both do, (0.5, 0.5) if neither does.

    symbol      here                                       shape
    θ           all trained tensors but a head, as one     (P,)
    K, M        inner, outer                               numbers
    q           quantile                                   number
    β1, β2      beta1, beta2                               numbers
    Ī, Ū        new, new_spread; old, old_spread           (P,)     0 when a block begins; of the memory, when a task
                                                                    begins (``reset_outer``: when a block begins)

``soft`` takes c_in = softmax over the two scores, each min–max-normalised over all weights, at ``temperature``, and
c_out = 1 − c_in, as another module of the authors' repository does instead of the masks. ``balanced`` takes equally
many rows per class.

Invariants: the first task is SeqLoRA; masks (1,1,0,0) and (1,0,1,0) with δ_in = 1, δ_out = 2 give (1.6, 1, 2, 1.5);
where nothing is important, the displacement is ½ (θ_M − θ_b).

Pitfalls: a block of K + M steps learns K of new rows, so that a task of few steps hardly begins; rows of earlier tasks
are stored. The published runs train at 3e-4 with 50 steps of warm-up, on 8 rows a step (2 × 4) for 10 epochs, on at
most 1 000 rows per task and reduced tests, and choose the best checkpoint on dev rows: set rate, warm-up and epochs
yourself; the last checkpoint counts here. Their figures are not comparable with one epoch on full splits.

What we do differently (tests/unit/test_fusion.py compares with a plain loop, tests/contract/test_kif.py checks rows
and gradients of every step):
- I = |w · g| with w and g of one point, before penalties and clipping: the first-order change of the loss when w is
  dropped. The code multiplies the weights after the step with the clipped gradient.
- Memory rows are passed through in shuffled rounds, so that all are seen equally often; the code makes a new loader
  for every outer step and takes its first batch.
- Outer steps use the one optimiser, with its rate and moments, as the code does when it runs; it declares a second
  optimiser with a rate of 1e-3, whose step is never called.
- Averages over outer steps are not cleared between blocks, as the code's default has it; whether the paper means it,
  is not known.
- Every step has its full number of rows, over all micro-batches: the last inner step of an epoch is filled up with new
  rows shuffled again, and the last block of an epoch may have fewer inner steps. A block that ``max_steps`` cuts short
  is fused if it has had an outer step; else its weights stay as they are.
- A classification head is trained in every step and not fused: it is no adapter.
- With fewer memory rows than a batch, rows repeat in it.

Composition: a step rule and replay on SeqLoRA; penalties join it (``recurrent-kif+lwf``), a second replay with other
settings does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods.seqlora import seqlora
from everlora.parts.fusion import Fusion
from everlora.parts.replay import Replay


@method(
    "recurrent-kif",
    title="Recurrent-KIF: learn, recall, and fuse both by the importance of each weight",
    paper="Feng et al., ACL 2025, arXiv:2502.17510",
    stores="r(o+i) per adapted matrix, constant; about ⌊ratio·n⌋ rows of data per task, at least one per class",
    cost="(inner + outer) / inner times the steps, 12P elementwise operations and 6P numbers while a task is learned",
    replay=True,
    aliases=("kif",),
)
def recurrent_kif(
    *,
    inner: Annotated[int, Default("K = 8 is that of the authors' code.")] = 8,
    outer: Annotated[int, Default("M = 4 is that of the authors' code.")] = 4,
    quantile: Annotated[float, Default("q = 0.8 is that of the authors' code.")] = 0.8,
    beta1: Annotated[float, Default("β1 = 0.85 is that of the authors' code.")] = 0.85,
    beta2: Annotated[float, Default("β2 = 0.85 is that of the authors' code.")] = 0.85,
    soft: Annotated[
        bool, Default("Masks are what the authors' code runs; another module of it has the softmax.")
    ] = False,
    temperature: Annotated[float, Default("It goes with ``soft`` alone, and 1 is our choice.", ours=True)] = 1.0,
    reset_outer: Annotated[bool, Default("The authors' script does not reset the averages between blocks.")] = False,
    ratio: Annotated[float, Default("2 % of the rows is that of the authors' code.")] = 0.02,
    balanced: Annotated[bool, Default("The authors' code stores equally many rows of each class.")] = True,
) -> Method:
    """Build Recurrent-KIF; ``temperature`` is for ``soft``.

    >>> [part.name for part in recurrent_kif(inner=4, outer=2).parts()]
    ['row_replay', 'fusion']

    Raises:
        ConfigError: a count below 1, or a share out of range.
    """
    rule = Fusion(
        inner=inner,
        outer=outer,
        quantile=quantile,
        beta1=beta1,
        beta2=beta2,
        soft=soft,
        temperature=temperature,
        reset_outer=reset_outer,
    )
    return replace(seqlora(), name="recurrent-kif", rehearsal=Replay(ratio=ratio, balanced=balanced), rule=rule)
