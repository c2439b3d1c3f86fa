"""Learning in blocks: steps on rows of the new task, then steps on rehearsed rows, then a rule for both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from everlora.core.roles import State


@dataclass(frozen=True, kw_only=True)
class BlockStep:
    """What one optimiser step is within its block.

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
    """The turns of ``steps`` steps on new rows, ``outer`` rehearsed ones after every ``inner`` and at the end."""
    found: list[BlockStep] = []
    for first in range(0, steps, inner):
        found += [BlockStep(rehearsed=False, opens=k == 0) for k in range(min(inner, steps - first))]
        found += [BlockStep(rehearsed=True, turns=k == 0, closes=k == outer - 1) for k in range(outer)]
    return tuple(found)


@runtime_checkable
class StepRule(Protocol):
    """Looks at every optimiser step, and moves the weights when a block of steps is over.

    What is trained is seen as one vector (P,), all places together; a classification head is not part of it. The rule
    acts while something is rehearsed; without rehearsed rows there are no blocks.
    """

    name: ClassVar[str]

    @property
    def inner(self) -> int:
        """Steps on new rows in a block."""
        ...

    @property
    def outer(self) -> int:
        """Steps on rehearsed rows that follow them."""
        ...

    def before(self, turn: BlockStep, weights: Tensor, gradient: Tensor, state: State) -> State:
        """The state when a step is about to be taken; empty at first.

        ``gradient`` is that of the task's own loss at ``weights``: before penalties, transforms and clipping.
        """
        ...

    def after(self, weights: Tensor, state: State) -> Tensor:
        """The weights after a block that ended at ``weights``."""
        ...
