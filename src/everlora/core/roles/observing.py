"""Further roles of a part: seeing what layers answer, and having the last word. They go with those of `core.roles`."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from everlora.core.roles import State
from everlora.core.updates import LowRank

ActivationSource = Literal["combined", "lora_only", "random"]


@runtime_checkable
class NeedsActivations(Protocol):
    """A transform that sees, before it shapes a gradient, how strongly each row of what is trained has answered.

    By live tensor: Σ |z| of the n outputs z that its rows make, over all tokens but padding, since the last step, of
    all micro-batches and processes. ``probe`` says what the outputs of B (of a full weight) are:

    ``combined``   those of the whole layer, W x + ΔW x
    ``lora_only``  those of the update, ΔW x
    ``random``     no outputs: uniform draws in the place of all magnitudes, from the run's seed
    """

    name: ClassVar[str]

    @property
    def probe(self) -> ActivationSource: ...

    def look(self, seen: State, state: State) -> State:
        """The constants of this step; ``seen`` is (L, n) by live tensor, infinite where a place has no outputs."""
        ...


@runtime_checkable
class PostProcesses(Protocol):
    """A part that has the last word on one adapter that is trained on and on: what answers is not what was trained.

    What was trained it may remember, to go on from there (as the initialiser of the next task).
    """

    name: ClassVar[str]

    def finish(self, update: LowRank, answered: LowRank | None, number: int) -> LowRank:
        """What answers from now on, for one module.

        Args:
            update: as it was trained.
            answered: what answered after the task before; None after the first.
            number: of the task, from 1.
        """
        ...
