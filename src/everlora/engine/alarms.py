"""Warnings that a learner gives of itself: no room left to learn in, or an update that vanished."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from everlora.core.past import Past
from everlora.core.roles import Saturating
from everlora.core.sites import Learned
from everlora.engine.group import Group

COLLAPSE = 0.05
"""An update this much smaller than the median earlier one is called collapsed."""
TASKS_LEFT = 3
"""Warn when there is room for fewer tasks than this, the one that begins among them."""


def saturated(groups: Sequence[Group]) -> list[str]:
    """Warnings of modules in which transforms leave too few directions to learn in."""
    found = []
    for group in groups:
        rank = group.live[0].rank
        for transform, state in group.transforms:
            if not isinstance(transform, Saturating):
                continue
            room = transform.free(state)
            left, where = int(room.min()), group.names[int(room.argmin())]
            if left < TASKS_LEFT * rank:
                found.append(
                    f"{left} directions are left in {where!r}, room for {left // rank} more tasks of rank {rank}; "
                    f"take a smaller --lora-r, wider modules (--lora-target-modules), or a soft method (ella, ps-lora)"
                )
    return found


def collapse(live: Learned, past: Past) -> list[str]:
    """A warning if the finished update is tiny beside the earlier ones: its penalty is low because it vanished."""
    if not len(past):
        return []

    def size(sites: Learned) -> float:
        return float(torch.stack([s.norm() for s in sites.values()]).norm())

    earlier = sorted(size(delta) for delta in past)
    typical, now = earlier[len(earlier) // 2], size(live)
    if now >= COLLAPSE * typical:
        return []
    return [
        f"the update collapsed: its norm is {now:.3g}, that of earlier tasks {typical:.3g}; the penalty is low only "
        f"because hardly anything was learned; lower its strength"
    ]
