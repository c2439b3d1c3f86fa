"""What parts want to see of a task: gradients, Fisher information, features, on a few rows."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from everlora.adapters import AdapterBackend
from everlora.core.roles import NeedsEvidence, State
from everlora.data.task import Example, Task
from everlora.models.families import Family
from everlora.runtime.seeds import seed_for
from everlora.training.features import second_moments
from everlora.training.fisher import fisher
from everlora.training.sensitivity import weight_gradients
from everlora.training.stages import Stage

NOTHING = torch.empty(0)


def observe(
    part: NeedsEvidence,
    stage: Stage,
    model: nn.Module,
    family: Family,
    backend: AdapterBackend,
    seed: int,
    only: Sequence[str] | None = None,
) -> Mapping[str, State]:
    """The evidence that ``part`` asks for, by place: of one tensor under the empty name, or by live tensor.

    Args:
        part: says what, and on how many rows.
        stage: whose training rows.
        model: standing on the past, with what is trained on it.
        family: how it reads rows.
        backend: knows the adapted layers and the live tensors.
        seed: of the run; which rows are drawn depends on it, on the stage and on the part alone.
        only: these places alone.
    """
    rows = [(row, task) for task in stage.tasks for row in task.train]
    draw = random.Random(seed_for(seed, stage.seeded, part.name))
    chosen: list[tuple[Example, Task]] = draw.sample(rows, min(part.samples, len(rows)))
    if part.evidence == "fisher":
        return fisher(model, family, backend.trainable(), chosen)
    layers = backend.base_layers()
    layers = {name: layers[name] for name in (layers if only is None else only)}
    if not chosen:
        return {name: {"": NOTHING} for name in layers}
    if part.evidence == "features":
        return {name: {"": moment} for name, moment in second_moments(model, family, layers, chosen).items()}
    per_sample = bool(getattr(part, "per_sample", False))
    found = weight_gradients(model, family, layers, chosen, per_sample=per_sample)
    return {name: {"": gradient} for name, gradient in found.items()}
