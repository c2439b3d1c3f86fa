"""InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning. Liang and Li, CVPR 2024.

https://arxiv.org/abs/2404.00228. What a task learns does not show on the inputs of earlier tasks if A annihilates
them. So A is not learned, it is designed: its rows lie in the span of the new task's features and off that of all
earlier ones, and B alone is trained:

    C = (1/n) Σ x xᵀ,   rows of A_t = top r singular vectors of (I − F Fᵀ) C, of norm 1/√3,   A_t F = 0
    after task t: F grows until it holds the share ε_t of the energy of the task's features

    symbol   here                                                       shape
    x        what an adapted layer reads, tokens but padding            (i,)
    C        second moment of x over ``samples`` rows, before training  (i, i)
    F        basis of earlier tasks' features, orthonormal              (i, q)
    ε, ε_t   energy, energy + (1 − energy)(t − 1) / tasks               scalars

Invariants: A_t is not trained, and ΔW_t F = s B_t A_t F = 0, whatever B_t becomes: hard for what F holds, open for the
share 1 − ε that it does not. Stored of F is the smaller of it and its complement (DualGPM): at most i²/2 elements per
adapted matrix. Where fewer than r directions are left, the remaining rows of A are 0 and learn nothing.

``design=features`` is the paper's; ``design=projected`` is the published T5 code without gates: PEFT's own draw of A,
projected off F, rows brought to 1/√3. ``measure=moment`` is the energy of the singular values of C,
``measure=features`` that of the features themselves, as the paper writes it: at the same ε it holds many more
directions.

Pitfalls: F grows with every task and with ``energy``, until no direction is left to learn in; F holds features of
training rows as the model was then, so what later tasks change in layers below is not held. The authors' learning rate
is 3e-4 for 10 epochs of batches of 32, chosen on test rows.

What we do differently:
- padding is left out of C: zeros or repeated tokens would be features;
- dropout is off while features are measured, and they are those of the model as it is at that point: before the task
  for A, after it for F;
- after the first task, the authors' code (as GPM's, from which this growth comes) holds one direction fewer than the
  share needs, and at least one; ours holds the share from the first task on, with as few directions as can be (the
  same tests). So F differs after the first task, and with it all A from the second on;
- F is orthonormalised anew after each task, in fp64; A F = 0 to 1e-6 (tests/unit/test_inflora.py).

Composition: an initialiser on IncLoRA whose A is fixed; penalties on ΔW and masks of B join it (``inflora+migu``),
another initialiser does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from everlora.core.adapter import Adapter
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods.inclora import inclora
from everlora.parts.features import FeatureStart, Measure


@method(
    "inflora",
    title="InfLoRA: A designed off the features of earlier tasks, B alone learned",
    paper="Liang and Li 2024, arXiv:2404.00228",
    stores="r(o+i) per adapted matrix and task, and a basis of features, at most i²/2",
    cost="nothing per step (less: A is fixed); two forward passes over `samples` rows and an SVD of (i, i) per task",
)
def inflora(
    *,
    samples: Annotated[int, Default("256 rows are our choice; the code takes all rows.", ours=True)] = 256,
    design: Annotated[Literal["features", "projected"], Default("``features`` is the paper's design.")] = "features",
    energy: Annotated[float, Default("ε = 0.995 is that of the published T5 code; the vision code has 0.95.")] = 0.995,
    tasks: Annotated[
        int | None,
        Default("ε_t grows only if the number of planned tasks is given, which a learner need not know.", ours=True),
    ] = None,
    measure: Annotated[
        Measure, Default("``moment`` is the energy that the ε of the published T5 code belongs to.")
    ] = "moment",
) -> Method:
    """Build InfLoRA; ``tasks`` is the number of tasks that are planned, if ε is to grow with them.

    >>> inflora(energy=0.99).adapter.fixed
    'A'

    Raises:
        ConfigError: ``energy`` is no share, or a count is below 1.
    """
    part = FeatureStart(samples=samples, design=design, energy=energy, tasks=tasks, measure=measure)
    return replace(inclora(), name="inflora", adapter=Adapter(policy="new", fixed="A"), initialiser=part)
