"""SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class Incremental Learning. Wu et al., ICLR 2025.

https://arxiv.org/abs/2501.13198. Directions are learned once and frozen, magnitudes are trained for ever: each task
adds a direction, and re-weighs those of all tasks before it.

    W = W0 + Σ_{i<t} α_i B_i A_i / (‖B_i‖_F ‖A_i‖_F) + α_t B_t A_t

    symbol       here                                   shape
    A_i, B_i     A, B of a module, rows/columns i r     (t r, i), (o, t r)
    1/(‖B‖‖A‖)   scale of a module                      (t)
    α            alpha of ``scalars``                   (t), one per task, the same in all layers

The adapter counts as one that is trained from task to task (policy and consolidator ``continue``), although it grows:
the past may not be folded, its magnitudes move, and the sum after task t is no sum of what each task added. Each
task's folder, and so the root, holds that sum as one standard PEFT LoRA adapter of rank t r, and in another file B,
scales and magnitudes as they are, so that a resumed run is rebuilt bit for bit.

Invariants: earlier directions do not change, all magnitudes do; with ``start=keep`` a task starts, to the bit, where
the one before ended. Pitfalls: magnitudes of earlier tasks are trained on new rows, so forgetting is bounded by
nothing; a step grows dearer with every task, and the adapter at the root has rank t r.

α_t starts at 1, A_t Kaiming-uniform, B_t = 0; the rank is --lora-r (the authors: 10, SGD, learning rate 8e-3 to 1e-2,
20 epochs). There is no α/r scale.

What we do differently:
- ``start=keep``: a finished direction is divided by one norm over all layers, the root mean square of ‖B‖‖A‖ to the
  nearest power of two, and its magnitude is multiplied by it, so a task starts, to the bit, where the one before
  ended. The published code divides layer by layer and starts the one shared scalar at 1, which throws the learned
  norms away and changes the function (tests/contract/test_sdlora.py shows by how much): ``start=reset``;
- frozen directions see no dropout.

Composition: a form of its own that is trained from task to task; replay joins it (``sd-lora+replay``).
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.parts.forms_directions import DirectionsAdapter, Start


@method(
    "sd-lora",
    title="SD-LoRA: frozen directions of all tasks, magnitudes trained on and on",
    paper="Wu et al. 2025, arXiv:2501.13198",
    stores="r(o+i) per adapted matrix and task, a scale each; one scalar per task",
    cost="4·tokens·r(o+i) per adapted matrix and earlier task",
)
def sdlora(
    *,
    start: Annotated[
        Start,
        Default(
            "``keep`` starts a task, to the bit, where the one before ended; the published code resets.", ours=True
        ),
    ] = "keep",
) -> Method:
    """Build SD-LoRA; ``start`` says what the magnitude of a finished direction starts at.

    >>> sdlora(start="reset").adapter.start
    'reset'
    """
    return Method(name="sd-lora", adapter=DirectionsAdapter(start=start), consolidator=Consolidator(rule="continue"))
