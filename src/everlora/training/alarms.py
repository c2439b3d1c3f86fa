"""Warns where a learner has no room left to learn in, or an update vanished or ran away, or a task was not learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import cast

import torch
from torch import Tensor, nn

from everlora.archive.records import FEW_TASKS
from everlora.core.errors import TrainingError
from everlora.core.roles import HasCapacity
from everlora.core.updates import LowRank, ModuleUpdate, Updates, Weights, difference
from everlora.data.task import Task
from everlora.models.layers import is_linear
from everlora.models.packing import is_packed
from everlora.training.group import Group

COLLAPSE = 0.05
"""An update this much smaller than the median earlier one is called collapsed."""
TOO_LARGE = 0.3
"""An update of this share of the weights below it is called large.

Measured on a small encoder, four tasks in 48 steps of 16 rows, two layers: settings that learn best (alpha 2 at a rate
of 1e-2, alpha 1 at 2e-2) came to shares of 0.11 to 0.25, one that loses 12 points to them by forgetting (alpha 32 at
5e-3) to 0.31 to 0.46. On all six layers: 0.12 on the first task for the former, 0.36 for the latter. Where the head is
never trained, the rate that learns best (7.6e-3) comes to 0.31 to 0.38: a large update may be what a task needs."""
TOO_LARGE_IN_FULL = 0.03
"""The same of weights that are trained themselves, in all directions at once.

Measured on that encoder with every layer: 0.014 to 0.018 at a rate of 1e-4, the best of four, and 0.034 to 0.043 at
3e-4, which ends 27 points below it."""
FEW_LOSSES = 4
"""Of fewer logged losses than this nobody can say whether they fell."""
EDGE = 3
"""Losses at either end of training that are compared."""
RISEN = 2.0
"""A loss of so many times that of the first step has run away, whatever happened in between."""
GUESSED = math.log(2)
"""A loss (nats) below this is of answers better than guesses between two, and has not run away."""
KNOWN = 0.1
"""A loss (nats per token, or per row of a head) below this need not fall: the task was known before."""
FEW_ROWS = 30
"""On fewer scored rows than this, a task that was learned and one that was not look alike."""
ABOVE_CHANCE = 1.645
"""Standard errors by which a score must be above chance: one of twenty guessers is."""
LEARN_MORE = "train longer (--num-train-epochs), or at a higher --learning-rate unless the update is large already"
LARGE = "the update is large:"
"""Begins the warning of an update that is large, and no other."""
RAN_AWAY = "the training loss ran away:"
"""Begins the warning of a loss that did, and no other."""
WEIGHT = "weight"
"""Names the matrix of a linear layer."""
LEARN_LESS = "lower --learning-rate or, of adapters, --lora-alpha"
"""Advises where it does; longer training, or a higher rate, would make it larger yet."""


def saturated(groups: Sequence[Group]) -> list[str]:
    """Return a warning where transforms leave too few directions to learn in."""
    found = []
    for group in groups:
        for transform, state in group.transforms:
            if not isinstance(transform, HasCapacity):
                continue
            rank = group.live[0].rank
            room = transform.free(state)
            left, where = int(room.min()), group.names[int(room.argmin())]
            if left < FEW_TASKS * rank:
                found.append(
                    f"{left} directions are left in {where!r}, room for {left // rank} more tasks of rank {rank}; "
                    f"take a smaller --lora-r, wider modules (--lora-target-modules), or a soft method (ella, ps-lora)"
                )
    return found


def after_training(
    update: Updates,
    start: Updates | None,
    layers: Mapping[str, nn.Module],
    log: Sequence[Mapping[str, float]],
    earlier: Sequence[float],
) -> list[str]:
    """Return warnings of an update that was just trained: it runs away, it vanished, or its loss did not fall.

    Args:
        update: what was trained.
        start: where it began, if one adapter goes on or weights themselves are trained.
        layers: below the adapter, by module.
        log: the Trainer's.
        earlier: how much earlier tasks changed, where penalties may keep a task from learning.
    """
    losses = [entry["loss"] for entry in log if "loss" in entry]
    vanished = collapse(change(update, start), earlier) if earlier else []
    large = runaway(update, start, layers)
    return [*vanished, *large, *unlearned(losses, LEARN_LESS if large else LEARN_MORE)]


def after_scoring(
    tasks: Sequence[Task], correct: Mapping[str, Sequence[bool]], split: str, trained: str | None = None
) -> list[str]:
    """Return warnings of tasks that were just learned and are answered no better than by guessing.

    Args:
        tasks: of the stage.
        correct: by scored task, which of its answers were right.
        split: the rows that were scored.
        trained: what was warned of when they were trained; what is advised now goes with it.
    """
    advice = LEARN_LESS if any(sign in (trained or "") for sign in (LARGE, RAN_AWAY)) else LEARN_MORE
    return [
        line
        for task in tasks
        if task.name in correct
        for line in guessing(task, [row.target for row in getattr(task, split)], correct[task.name], advice)
    ]


def check_finite(update: Updates, task: str) -> None:
    """Refuse an update that is NaN or infinite.

    Raises:
        TrainingError: it is.
    """
    # One norm over everything is finite only if every entry is.
    if not torch.stack([site.norm() for site in update.values()]).norm().isfinite():
        raise TrainingError(
            f"what was learned of task {task!r} is NaN or infinite; tasks learned before are intact; {LEARN_LESS}"
        )


def change(update: Updates, start: Updates | None) -> float:
    """Return how much a task has changed, over all places.

    That is ‖ΔW‖_F of low-rank updates, and the distance of other tensors from ``start`` (from 0 where they are fresh).
    """
    return float(torch.stack([_moved(site, start[name] if start else None) for name, site in update.items()]).norm())


def _moved(now: ModuleUpdate, then: ModuleUpdate | None) -> Tensor:
    if then is None:
        return now.norm()
    if isinstance(now, LowRank):
        return difference(now, cast(LowRank, then)).norm()
    # What has grown (a pool of prompts, say) is new there.
    moved = [t.float() - _padded(then.tensors[name].float(), t) for name, t in now.tensors.items()]
    return torch.stack([t.norm() for t in moved]).norm()


def _padded(before: Tensor, like: Tensor) -> Tensor:
    if before.shape == like.shape:
        return before
    padded = torch.zeros_like(like)
    padded[tuple(slice(0, n) for n in before.shape)] = before
    return padded


def collapse(now: float, earlier: Sequence[float]) -> list[str]:
    """Return a warning if a task's `change` is tiny against earlier ones: its penalty is low as it vanished."""
    if not earlier:
        return []
    # The median: one task that needed much more than the others must not set what is usual.
    typical = sorted(earlier)[len(earlier) // 2]
    if now >= COLLAPSE * typical:
        return []
    return [
        f"the update collapsed: its norm is {now:.3g}, that of earlier tasks {typical:.3g}; the penalty is low only "
        f"because hardly anything was learned; lower its strength"
    ]


def runaway(update: Updates, start: Updates | None, layers: Mapping[str, nn.Module]) -> list[str]:
    """Return a warning if an update is large against the weights that it is added to, in the median module.

    Args:
        update: what was trained; updates of low rank, and weights that were trained themselves, are looked at, since
            prompts and gates are added to no weights.
        start: where it began, if one adapter goes on or weights themselves are trained.
        layers: below the adapter, by module; packed weights of a quantised layer have no norm and are left out.
    """
    found = [_share(site, start.get(name) if start else None, layers.get(name)) for name, site in update.items()]
    shares = [share for share in found if share is not None]
    bound = TOO_LARGE if all(isinstance(site, LowRank) for site in update.values()) else TOO_LARGE_IN_FULL
    if not shares or median(shares) < bound:
        return []
    return [
        f"{LARGE} its norm is {median(shares):.0%} of that of the weights below it (median module); from {bound:.0%} "
        f"on, more was seen to be forgotten, and training to diverge; where scores suffer, {LEARN_LESS}"
    ]


def _share(now: ModuleUpdate, then: ModuleUpdate | None, layer: nn.Module | None) -> float | None:
    """Return how large an update is against the weights that it is added to; None where there are none to measure."""
    if not is_linear(layer):
        return None
    if isinstance(now, LowRank):
        if is_packed(layer.weight):
            return None
        moved, held = _moved(now, then), layer.weight.detach().float().norm()
    else:
        # Of weights that are trained themselves the layer holds what became of them.
        if then is None or WEIGHT not in now.tensors:
            return None
        weight = now.tensors[WEIGHT].float()
        # What a model began with is where the model is; one matrix at a time, since a second model may not fit there.
        began = cast(Weights, then).tensors[WEIGHT].to(weight.device, weight.dtype)
        moved, held = (weight - began).norm(), began.norm()
    return float(moved) / max(float(held), 1e-12)


def unlearned(losses: Sequence[float], advice: str = LEARN_MORE) -> list[str]:
    """Return a warning if the training loss of a task did not fall.

    Args:
        losses: that were logged, in order, from that of the first step.
        advice: what to do where the loss stayed where it was; where it ran away, it is to learn less.
    """
    if len(losses) < 2:  # a first and a last
        return []
    # Means of a few at each end, since a single loss is one of a single batch; the ends never overlap.
    edge = min(EDGE, len(losses) // 2)
    first, last = mean(losses[:edge]), mean(losses[-edge:])
    if min(last, losses[-1]) >= max(RISEN * losses[0], GUESSED) and last >= first:
        return [f"{RAN_AWAY} it went from {losses[0]:.3g} to {losses[-1]:.3g}; {LEARN_LESS}"]
    if len(losses) < FEW_LOSSES or last < first or last < KNOWN:
        return []
    return [f"the task was not learned: its training loss went from {first:.3g} to {last:.3g}; {advice}"]


def guessing(task: Task, targets: Sequence[str], correct: Sequence[bool], advice: str = LEARN_MORE) -> list[str]:
    """Return a warning if the answers to a task with labels are, within noise, no better than guessing.

    Guessing means the larger of the most frequent label's share and one by the number of labels; noise is the
    standard error of as many answers.

    Args:
        task: just learned.
        targets: the right answers of the scored rows.
        correct: which of them were given.
        advice: what to do where it was not learned.
    """
    n = len(targets)
    if not task.labels or n < FEW_ROWS:
        return []
    chance = max(max(Counter(targets).values()) / n, 1 / len(task.labels))
    bound = chance + ABOVE_CHANCE * math.sqrt(chance * (1 - chance) / n)
    right = sum(correct) / n
    if right > bound or bound >= 1:  # where nearly all rows are of one label, no score tells
        return []
    return [
        f"the task was not learned: {right:.1%} of {n} answers are right, and guessing comes to {chance:.1%}; {advice}"
    ]
