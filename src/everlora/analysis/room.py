"""How much room a learner's updates leave in a matrix."""

from __future__ import annotations

from typing import NamedTuple

from everlora.core.history import UpdateHistory
from everlora.parts.subspace import free


class Room(NamedTuple):
    """What no update uses of one module, on the narrower of its two sides: a share, and a number of directions."""

    share: float
    directions: int


def room(past: UpdateHistory, site: str) -> Room:
    """The room that ``past`` leaves in one module."""
    out, into = past.deltas[0][site].shape
    left_out, left_in = map(int, free([delta[site] for delta in past]))
    return Room(min(left_out / out, left_in / into), min(left_out, left_in))
