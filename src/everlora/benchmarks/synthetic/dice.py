"""Makes random choices that are the same on every machine: `Dice`.

Only `random.Random.random` is promised to give the same numbers in every Python version, so everything here is built
on it; `choice`, `sample` and `shuffle` of the standard library carry no such promise.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Is a seeded source of choices; the same keys give the same choices in every process."""

    def __init__(self, *keys: int | str) -> None:
        # Only `random()` of Python's generator is promised to stay the same over versions; all else here is made of
        # it.
        digest = hashlib.sha256("/".join(str(key) for key in keys).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big")).random

    def below(self, bound: int) -> int:
        """Return a whole number from 0 to ``bound`` - 1."""
        return int(self._random() * bound)

    def between(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return one of ``items``."""
        return items[self.below(len(items))]

    def several(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different members of ``items`` in random order."""
        return self.shuffled(items)[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return ``items`` in random order."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
