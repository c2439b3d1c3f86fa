"""The roles that parts play. A part is a frozen, keyword-only dataclass: it is its configuration, without state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from everlora.core.roles.values import AutoStrength, Evidence, PenaltyGradient, State, Strength, TaskContext, View
from everlora.core.updates import LowRank

__all__ = [
    "AutoStrength",
    "Evidence",
    "GradientTransform",
    "HasCapacity",
    "HasEnergy",
    "HasMemory",
    "Initialiser",
    "Merge",
    "NeedsEvidence",
    "OutputPenalty",
    "PenaltyGradient",
    "ReconstructsPast",
    "Rehearsal",
    "State",
    "Strength",
    "TaskContext",
    "View",
    "WeightPenalty",
]


@runtime_checkable
class WeightPenalty(Protocol):
    """A term of the objective that depends on weights alone, never on the batch.

    The engine adds strength times its gradient once per optimiser step, after accumulation and reduction over
    processes and before clipping, so that the strength means the same for every split of a batch. A part with a
    class attribute ``tensors`` acts only where there are live tensors of these names.
    """

    name: ClassVar[str]

    @property
    def strength(self) -> Strength:
        """The coefficient, or the share that finds it; 0 switches the part off."""
        ...

    def prepare(self, before: TaskContext) -> State | None:
        """Constants of one task for one group of modules; None if there is nothing to pull on (no past, say)."""
        ...

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        """Value and closed-form gradient at ``live``, at strength 1."""
        ...


@runtime_checkable
class HasEnergy(Protocol):
    """A penalty that weighs every entry of an update by an energy that it sees in the past."""

    def weigh(self, total: Tensor) -> Tensor:
        """E of W_past, (..., o, i) to the same shape, at least 0."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A part that carries something of its own from task to task, beside the tasks' updates."""

    name: ClassVar[str]

    def remember(self, update: LowRank, memory: State, seen: State | None = None) -> State:
        """The memory of one module after a task that added ``update``.

        ``memory`` is empty after the first task, and where one adapter is trained on and on, unless the part is
        `cumulative`: ``update`` is then this adapter, all there is. ``seen`` is what a `NeedsEvidence`
        part asked for.
        """
        ...

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        """Bytes kept of one module of shape (out, into) after ``tasks`` updates of rank ``rank``.

        An adapter that is trained on and on counts as one update. Where it depends on the data, the class attribute
        ``at_most = True`` says that this is the most it can be.
        """
        ...


@runtime_checkable
class NeedsEvidence(Protocol):
    """A part that looks at rows of a task once it has been learned (or, an initialiser, before it is).

    ``evidence`` is what it wants to see of each module, of ``samples`` training rows, drawn from the run's seed:

    ``gradients``  ∂L/∂W at the weights themselves, (n, o, i): n = 1 for the mean loss, or one per row
    ``fisher``     by live tensor, the mean over rows of the squared gradient of each row's own loss
    ``features``   the second moment of the module's inputs, (1/n) Σ x xᵀ over tokens, (i, i)
    """

    name: ClassVar[str]
    evidence: ClassVar[Evidence]

    @property
    def samples(self) -> int: ...


@runtime_checkable
class OutputPenalty(Protocol):
    """A term of the objective that compares answers with those that the model gave when the task began.

    The engine adds strength · Σ per_position over the positions that carry loss, divided like the task's loss by their
    number
    in the global batch. On the first task there is nothing to compare with.
    """

    name: ClassVar[str]

    @property
    def strength(self) -> float: ...

    @property
    def on(self) -> Literal["task", "rehearsed"]:
        """Which rows: those of the new task, or those that are rehearsed."""
        ...

    def per_position(self, new: Tensor, old: Tensor) -> Tensor:
        """Penalty per position (n,), differentiable in ``new`` (n, v); ``old`` (n, v) are the former logits."""
        ...


@runtime_checkable
class Rehearsal(Protocol):
    """Rows of earlier tasks that are kept, and learned again beside those of a new task."""

    name: ClassVar[str]

    def choose(self, targets: Sequence[str], draw: random.Random) -> list[int]:
        """Which rows of a finished task, given by their labels, are kept: indices, in any order.

        Where answers are free text, ``targets`` are empty: all rows are of one kind. A part with ``resample``
        ``each-task`` is asked anew for every later task, and the whole training set is kept.
        """
        ...


@runtime_checkable
class ReconstructsPast(Protocol):
    """A part whose memory stands for W_past, exactly or nearly; how nearly, `everlora status` measures."""

    def reconstruct(self, memory: State) -> Tensor:
        """W_past as it is remembered, (..., o, i)."""
        ...


@runtime_checkable
class GradientTransform(Protocol):
    """Shapes gradients, after the penalties have been added and before clipping; or the step that was taken.

    ``acts_on`` is ``gradient`` before the optimiser, ``update`` on the change of the parameters after it, or both.
    """

    name: ClassVar[str]

    @property
    def acts_on(self) -> Literal["gradient", "update", "both"]: ...

    def prepare(self, before: TaskContext) -> State | None:
        """Constants of one task for one group of modules; None if nothing is to be shaped."""
        ...

    def shape(self, gradient: State, state: State) -> State:
        """Shape gradients (or changes) of the live tensors, by name, linearly in ``gradient``."""
        ...


@runtime_checkable
class HasCapacity(Protocol):
    """A transform that leaves fewer directions to learn in with every task."""

    def free(self, state: State) -> Tensor:
        """Directions left per module, (L,)."""
        ...


@runtime_checkable
class Initialiser(NeedsEvidence, Protocol):
    """Starts a fresh adapter from what earlier tasks learned, in the light of a few rows of the new task.

    ``samples`` rows are looked at; ``per_sample`` asks for each row's gradient instead of that of their mean loss. It
    acts from the second task on; one that carries the class attribute ``first_too = True`` acts on the first as well.
    """

    @property
    def per_sample(self) -> bool: ...

    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        """Those modules, of all that are adapted, that are started by this part."""
        ...

    def start(self, fresh: LowRank, updates: Sequence[LowRank], seen: Tensor, memory: State | None = None) -> LowRank:
        """The live update to start from, for one module.

        Args:
            fresh: what PEFT drew.
            updates: the earlier tasks' updates, oldest first; under the policy ``continue`` the one adapter so far.
            seen: the `NeedsEvidence` part's evidence at the weights of the last task: ∂L/∂W (n, o, i), n = 1 unless
                ``per_sample``, or features (i, i).
            memory: what the part remembered when the last task ended; empty if it remembers nothing.
        """
        ...


@runtime_checkable
class Merge(Protocol):
    """Makes one weight of the tasks' updates where it is not simply their sum.

    ``train`` says what a new task is trained on top of, the plain ``sum`` of the past or the past ``merged``;
    ``infer`` says what answers.
    """

    name: ClassVar[str]

    @property
    def train(self) -> View: ...

    @property
    def infer(self) -> View: ...

    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        """Merge dense updates (..., o, i), oldest first; they may be drawn one at a time."""
        ...
