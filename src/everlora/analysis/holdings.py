"""Measures what a learner holds after a task: bytes, the room its updates leave, and how far off its memory is."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import NamedTuple

from everlora.analysis.ranks import over_modules
from everlora.analysis.spans import Used, used_directions
from everlora.archive.records import FreeDirections, Holdings, MemoryLoss, Room
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import BoundsMemoryError, HasCapacity, Part, ReconstructsPast, State
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
        losses = _losses(part, past, held)
        if not losses:
            continue
        each = {name: lost / size if size else 0.0 for name, (lost, size) in losses.items()}
        lost, total = (hypot(*values) for values in zip(*losses.values(), strict=True))
        worst = max(each, key=lambda name: each[name])
        found[part.name] = MemoryLoss(
            error=lost / total if total else 0.0,
            worst=each[worst],
            module=worst,
            at_most=isinstance(part, BoundsMemoryError),
        )
    return found


def _losses(part: Part, past: UpdateHistory, held: Mapping[str, State]) -> dict[str, tuple[float, float]]:
    """Return the norms of what a part's memory lacks and of what it stands for, by module; none of an exact one."""
    if isinstance(part, BoundsMemoryError):
        bounds = {name: part.error_bound(state) for name, state in held.items()}
        return {name: bound for name, bound in bounds.items() if bound is not None}
    if not isinstance(part, ReconstructsPast):
        return {}
    # The tasks' own updates are stored anyway, so how far off a memory is can be measured and need not be estimated.
    exact = {name: past.total(name) for name in held}
    return {name: (float((W - part.reconstruct(held[name])).norm()), float(W.norm())) for name, W in exact.items()}
