"""Measures what a learner holds after a task: bytes, the room its updates leave, and how far off its memory is."""

from __future__ import annotations

from math import hypot
from typing import NamedTuple

from everlora.analysis.ranks import over_modules
from everlora.analysis.spans import Used, used_directions
from everlora.archive.records import FreeDirections, Holdings, MemoryLoss, Room
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import HasCapacity, ReconstructsPast
from everlora.training.memory import Memory


class Free(NamedTuple):
    """Holds what no update uses of one module, on the narrower of its sides: a share, and a number of directions."""

    share: float
    directions: int


def free_directions(past: UpdateHistory, site: str) -> Free:
    """Measure the room that ``past`` leaves in one module."""
    return _free(past, site, used_directions(past, site))


def _free(past: UpdateHistory, site: str, used: Used) -> Free:
    out, into = past.deltas[0][site].shape
    left_out, left_in = out - used.out, into - used.into
    return Free(min(left_out / out, left_in / into), min(left_out, left_in))


def measure_holdings(method: Method, past: UpdateHistory, remembered: Memory, memory_bytes: int) -> Holdings:
    """Measure what a learner holds.

    Args:
        method: its method.
        past: the updates that the next task is learned on top of.
        remembered: what its parts remember.
        memory_bytes: what the next task needs of the earlier ones.
    """
    if not len(past) or not method.adapter.low_rank:
        return Holdings(memory_bytes=memory_bytes)
    rank = max(site.rank for site in past.deltas[-1].values())
    used = {name: used_directions(past, name) for name in past.sites}
    modules = []
    for name in sorted(used):  # as they are stored, so that it is the same from memory and from a folder
        share, left = _free(past, name, used[name])
        modules.append(FreeDirections(module=name, free=share, directions=left, tasks_left=left // rank))
    hard = any(isinstance(transform, HasCapacity) for transform in method.transforms)
    return Holdings(
        memory_bytes=memory_bytes,
        memory_error=memory_error(method, past, remembered),
        room=Room(rank=rank, hard=hard, modules=modules),
        rank=over_modules([one.rank for one in used.values()]),
    )


def memory_error(method: Method, past: UpdateHistory, remembered: Memory) -> dict[str, MemoryLoss]:
    """Measure how far off each part is that remembers the past in a form of its own; by part."""
    found = {}
    for part in method.remembering:
        # A part that keeps no more than the tasks' own factors remembers nothing of any module.
        held = {name: state for name, state in sorted(remembered.get(part.name, {}).items()) if state}
        if not isinstance(part, ReconstructsPast) or not held:
            continue
        # The tasks' own updates are stored anyway, so how far off a memory is can be measured and need not be
        # estimated.
        exact = {name: past.total(name) for name in held}
        lost = {name: float((exact[name] - part.reconstruct(held[name])).norm()) for name in exact}
        sizes = {name: float(exact[name].norm()) for name in exact}
        each = {name: lost[name] / sizes[name] if sizes[name] else 0.0 for name in exact}
        total, worst = hypot(*sizes.values()), max(each, key=lambda name: each[name])
        error = hypot(*lost.values()) / total if total else 0.0
        found[part.name] = MemoryLoss(error=error, worst=each[worst], module=worst)
    return found
