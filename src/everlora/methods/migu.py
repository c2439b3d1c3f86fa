"""MIGU: Magnitude-based Gradient Updating for continual learning. Du et al., Findings of EMNLP 2024.

https://arxiv.org/abs/2406.17245. Tasks differ in which outputs of a layer are large. Only the rows whose outputs are
large on the new task learn it; the others, which earlier tasks may use, do not change. From the second task on, once
per optimiser step:

    m_j = Σ_tokens |z_j|,   μ_j = 1 if m_j ≥ quantile_τ(m), else 0,   row j of ∂L/∂W  ←  μ_j · row j

    symbol   here                                                        shape
    z of A   A x                                                         (r,)
    z of B   W x + s B A x (outputs=combined), or s B A x (lora_only)     (o,)
    m        sums over all tokens but padding, micro-batches, processes
    μ        masks; n − ⌈τ(n − 1)⌉ of n rows stay: 3 of 8, 307 of 1024
    τ        tau

Invariants: masked rows do not move (``mask_update``), the first task has no mask, and the mask is the same on all
processes. Pitfalls: a mask chooses rows and no directions, so a row that is large on all tasks is learned by all; with
8 rows (A at rank 8) 3 are learned, so at small ranks little of A is. A triplet U Σ V is masked as B and A, and σ_k
with row k of V. ``outputs=random`` masks as many rows at random: the control.

The authors' scripts learn at a rate of 1e-4. The paper norms m, which changes no mask. It costs one sum of |z| per
layer and token, A x once more, and a sort of n values per layer and step.

What we do differently:
- the published code replaces a library's backward function, and works without sharded gradients only; here forward
  hooks measure and the mask acts on the reduced gradient, so it is the same on all processes (tests/equivalence);
- the published entry point for LoRA imports a function that is not there, so the masks of A and B follow the paper;
- ``mask_update`` masks the step, too: under Adam a masked row would move on by its momentum
  (tests/contract/test_masked.py shows both);
- padding does not count: it would weigh rows by how uneven a batch is;
- a classification head is not masked: its rows are labels.

Composition: a transform for any method: ``o-lora+migu``, ``inclora+migu``, ``ella+migu``, also on full weights, where
z is the layer's output and the rows are those of W. The gradient of the task and those of the penalties are masked
alike. By itself it is put on SeqLoRA: the mask says which rows of shared weights a new task may move, while a fresh
adapter, whose B is 0, shares nothing but the sum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.core.roles import ActivationSource
from everlora.methods.seqlora import seqlora
from everlora.parts.masks import MagnitudeMask


@method(
    "migu",
    title="MIGU: only rows whose outputs are large on the new task learn it; a plug-in",
    paper="Du et al. 2024, arXiv:2406.17245",
    stores="nothing of its own; alone as seqlora: r(o+i) per adapted matrix, constant",
    cost="one sum of magnitudes per layer and token, and a sort of o values per layer and step",
    rows=("migu", "o-lora+migu"),
)
def migu(
    *,
    tau: Annotated[float, Default("τ = 0.7 is that of the authors' scripts.")] = 0.7,
    outputs: Annotated[
        ActivationSource,
        Default(
            "``combined`` is the layer's output, which is what earlier tasks answer with; the published code does "
            "not run for LoRA.",
            ours=True,
        ),
    ] = "combined",
    mask_update: Annotated[
        bool, Default("Without a mask on the step a masked row moves on by Adam's momentum.", ours=True)
    ] = True,
) -> Method:
    """Build MIGU; ``outputs=lora_only`` measures the update alone, ``random`` is the control.

    >>> migu(tau=0.5).transforms[0].tau
    0.5

    Raises:
        ConfigError: ``tau`` is no share.
    """
    mask = MagnitudeMask(tau=tau, outputs=outputs, mask_update=mask_update)
    return replace(seqlora(), name="migu", transforms=(mask,), plugin=True)
