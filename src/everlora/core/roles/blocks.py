"""Plans blocks of steps: some on rows of the new task, some on rehearsed rows, then a rule for both together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BlockStep:
    """Says what one optimiser step is within its block.

    >>> [step.closes for step in plan(2, inner=2, outer=1)]
    [False, False, True]

    Attributes:
        rehearsed: its rows are rehearsed ones, all of them; else they are new, all of them.
        opens: it is the first of its block.
        turns: it is the first of its block on rehearsed rows.
        closes: it is the last of its block.
    """

    rehearsed: bool
    opens: bool = False
    turns: bool = False
    closes: bool = False


def plan(steps: int, inner: int, outer: int) -> tuple[BlockStep, ...]:
    """Lay out ``steps`` steps on new rows, with ``outer`` rehearsed ones after every ``inner`` and at the end.

    >>> [step.rehearsed for step in plan(3, inner=2, outer=1)]
    [False, False, True, False, True]
    """
    found: list[BlockStep] = []
    for first in range(0, steps, inner):
        found += [BlockStep(rehearsed=False, opens=k == 0) for k in range(min(inner, steps - first))]
        found += [BlockStep(rehearsed=True, turns=k == 0, closes=k == outer - 1) for k in range(outer)]
    return tuple(found)
