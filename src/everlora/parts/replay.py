"""Rehearses rows, and chooses which of them are stored when a task has ended."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from everlora.core.errors import ConfigError
from everlora.core.roles import Needs, Rehearsal

Resample = Literal["fixed", "each-task"]


def share(ratio: float, rows: int) -> int:
    """Return ⌊ratio · rows⌋, the ratio as it was written: 0.29 of 100 rows are 29, but 0.29 * 100 is below 29.

    >>> share(0.29, 100)
    29
    """
    return int(Fraction(str(ratio)) * rows)


def balanced(classes: Sequence[str], size: int, draw: random.Random) -> list[int]:
    """Return about ``size`` rows, an equal quota of each class and at least one, the remainder at random.

    More than ``size`` only where there are more classes. A class with fewer rows than its quota gives what it has.

    >>> balanced(["yes", "yes", "no", "yes"], size=2, draw=random.Random(0))[-1]
    2
    """
    by_class: dict[str, list[int]] = {}
    for row, name in enumerate(classes):
        by_class.setdefault(name, []).append(row)
    if not by_class:
        return []
    quota = max(1, size // len(by_class))
    chosen = [row for rows in by_class.values() for row in draw.sample(rows, min(quota, len(rows)))]
    rest = sorted(set(range(len(classes))) - set(chosen))
    return chosen + draw.sample(rest, max(0, size - len(chosen)))


@dataclass(frozen=True, kw_only=True)
class Replay(Rehearsal):
    """Keeps a share of the training rows of every task, and shuffles them among those of later tasks.

    Attributes:
        ratio: the share; ⌊ratio · n⌋ rows of a task of n.
        balanced: an equal number of rows of every class, at least one; where answers are free text, it has no meaning.
        resample: ``fixed`` rows are drawn once and kept in the run folder; or anew for ``each-task``, from the whole
            training sets of the earlier tasks, which must then be kept somewhere.
        rehearsed_only: learn what is kept and nothing else; for learning all tasks at once.
    """

    name: ClassVar[str] = "row_replay"
    needs: ClassVar[Needs] = Needs(any_form=True)

    ratio: float = 0.02
    balanced: bool = False
    resample: Resample = "fixed"
    rehearsed_only: bool = field(default=False, metadata={"recorded_as": "alone"})

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ConfigError(f"the ratio of rows to be rehearsed must be from 0 to 1, not {self.ratio}")

    def choose(self, targets: Sequence[str], draw: random.Random) -> list[int]:
        """Return which rows are stored, by their classes."""
        if self.balanced and self.ratio:
            return balanced(targets, share(self.ratio, len(targets)), draw)
        return draw.sample(range(len(targets)), share(self.ratio, len(targets)))
