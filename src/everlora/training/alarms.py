"""Warns of what a learner finds in itself: no room left to learn in, or an update that vanished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from everlora.archive.records import FEW_TASKS
from everlora.core.roles import HasCapacity
from everlora.core.updates import LowRank, ModuleUpdate, Updates, difference
from everlora.training.group import Group

COLLAPSE = 0.05
"""An update this much smaller than the median earlier one is called collapsed."""


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


def change(update: Updates, start: Updates | None) -> float:
    """Return how much a task has changed, over all places.

    That is ‖ΔW‖_F of low-rank updates, and the distance of other tensors from ``start`` (from 0 where they are fresh).
    """
    return float(torch.stack([_moved(site, start[name] if start else None) for name, site in update.items()]).norm())


def _moved(now: ModuleUpdate, then: ModuleUpdate | None) -> Tensor:
    if then is None:
        return now.norm()
    if isinstance(now, LowRank) and isinstance(then, LowRank):
        return difference(now, then).norm()
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
    typical = sorted(earlier)[len(earlier) // 2]
    if now >= COLLAPSE * typical:
        return []
    return [
        f"the update collapsed: its norm is {now:.3g}, that of earlier tasks {typical:.3g}; the penalty is low only "
        f"because hardly anything was learned; lower its strength"
    ]
