"""Defines the roles that parts play in a method; a part inherits one of them."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from everlora.core.roles.blocks import BlockStep
from everlora.core.roles.contract import Part, attribute
from everlora.core.roles.values import NO_EVIDENCE, Evidence, Strength, TaskContext, View
from everlora.core.updates import LowRank, PenaltyGradient, State


class WeightPenalty(Part, role=True):
    """Adds a term to the objective that depends on weights only, never on the batch.

    Its gradient is added once per optimiser step, strength times, after accumulation and reduction over processes and
    before clipping, so that the strength means the same for every split of a batch.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import torch
    >>> from everlora.roles import PenaltyGradient, WeightPenalty
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SmallRows(WeightPenalty):
    ...     name: ClassVar[str] = "small_rows"
    ...     strength: float = 0.1
    ...     def prepare(self, before):
    ...         return {}
    ...     def value_and_grad(self, live, state):
    ...         value, zero = live.A.square().sum((-2, -1)), torch.zeros_like(live.up)
    ...         return PenaltyGradient.through(live, value, 2 * live.A, zero)
    >>> SmallRows(strength=0.5).strength
    0.5
    >>> class Unfinished(WeightPenalty):
    ...     name: ClassVar[str] = "unfinished"
    ...     strength = 0.1
    ...     def prepare(self, before):
    ...         return {}
    Traceback (most recent call last):
        ...
    everlora.core.errors.ConfigError: the WeightPenalty Unfinished lacks value_and_grad; define it in the class
    """

    by_module: ClassVar[bool] = False
    """Whether value and gradient of each module depend on that module alone, so that few may be computed at once."""

    @attribute
    @abstractmethod
    def strength(self) -> Strength:
        """Return the coefficient λ, or the `AutoStrength` that finds it; 0 switches the part off."""

    @abstractmethod
    def prepare(self, before: TaskContext) -> State | None:
        """Return the constants of one task for one group of modules; None if nothing is to be pulled on (no past)."""

    @abstractmethod
    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        """Return value and closed-form gradient at ``live``, at strength 1."""


class OutputPenalty(Part, role=True):
    """Adds a term to the objective that compares answers with those that the model gave when the task began.

    What is added to the loss is strength · Σ per_position over the positions that carry loss, divided like the task's
    loss by their number in the global batch. On the first task there is nothing to compare with.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import torch
    >>> from everlora.roles import OutputPenalty
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SameLogits(OutputPenalty):
    ...     name: ClassVar[str] = "same_logits"
    ...     strength: float = 0.1
    ...     on: ClassVar[str] = "task"
    ...     def per_position(self, new, old):
    ...         return (new - old).square().sum(-1)
    >>> SameLogits().per_position(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([4.])
    """

    @attribute
    @abstractmethod
    def strength(self) -> float:
        """Return the coefficient; 0 switches the part off."""

    @attribute
    @abstractmethod
    def on(self) -> Literal["task", "rehearsed"]:
        """Return on which rows it acts: those of the new task, or those that are rehearsed."""

    @abstractmethod
    def per_position(self, new: Tensor, old: Tensor) -> Tensor:
        """Return the penalty per position (n,), differentiable in ``new`` (n, v); ``old`` (n, v) are former logits."""


class GradientTransform(Part, role=True):
    """Shapes gradients, after the penalties have been added and before clipping; or the step that was taken.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import torch
    >>> from everlora.roles import GradientTransform
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Slower(GradientTransform):
    ...     name: ClassVar[str] = "slower"
    ...     acts_on: ClassVar[str] = "gradient"
    ...     factor: float = 0.5
    ...     def prepare(self, before):
    ...         return {} if before.updates else None
    ...     def shape(self, gradient, state):
    ...         return {key: self.factor * change for key, change in gradient.items()}
    >>> Slower().shape({"A": torch.ones(2)}, {})
    {'A': tensor([0.5000, 0.5000])}
    """

    @attribute
    @abstractmethod
    def acts_on(self) -> Literal["gradient", "update", "both"]:
        """Return ``gradient`` (before the optimiser), ``update`` (the change that it makes), or ``both``."""

    @abstractmethod
    def prepare(self, before: TaskContext) -> State | None:
        """Return the constants of one task for one group of modules; None if nothing is to be shaped."""

    @abstractmethod
    def shape(self, gradient: State, state: State) -> State:
        """Shape gradients (or changes) of the live tensors, by name, linearly in ``gradient``."""

    def shape_each(self, gradients: Sequence[State], state: State) -> list[State]:
        """Shape several gradients, each by itself; a transform may do in one go what it does to all of them."""
        return [self.shape(gradient, state) for gradient in gradients]


class Initialiser(Part, role=True):
    """Starts a fresh adapter from what earlier tasks learned; one that inherits `NeedsEvidence` sees the new task.

    It acts from the second task on; one that declares ``Needs(first_task=True)`` acts on the first as well.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> from everlora.roles import NO_EVIDENCE, Initialiser
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SameDown(Initialiser):
    ...     name: ClassVar[str] = "same_down"
    ...     def covers(self, sites):
    ...         return tuple(sites)
    ...     def start(self, fresh, updates, evidence=NO_EVIDENCE, memory=None):
    ...         return fresh.holding({**fresh.tensors, "A": updates[-1].A})
    >>> SameDown().covers(["layers.0.query"])
    ('layers.0.query',)
    """

    @abstractmethod
    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        """Return those modules, of all that are adapted, that are started by this part."""

    @abstractmethod
    def start(
        self,
        fresh: LowRank,
        updates: Sequence[LowRank],
        evidence: Evidence = NO_EVIDENCE,
        memory: State | None = None,
    ) -> LowRank:
        """Return the live update to start from, for one module.

        Args:
            fresh: what PEFT drew.
            updates: the earlier tasks' updates, oldest first; under the policy ``continue`` the one adapter so far.
            evidence: what was measured at the weights of the last task.
            memory: what the part remembered when the last task ended; None if it remembers nothing.
        """


class Rehearsal(Part, role=True):
    """Stores rows of earlier tasks, which are learned again together with those of a new task.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> from everlora.roles import Rehearsal
    >>> @dataclass(frozen=True, kw_only=True)
    ... class OneOfEach(Rehearsal):
    ...     name: ClassVar[str] = "one_of_each"
    ...     def choose(self, targets, draw):
    ...         return [list(targets).index(label) for label in dict.fromkeys(targets)]
    >>> OneOfEach().choose(["yes", "yes", "no"], random.Random(0))
    [0, 2]

    Attributes:
        resample: ``fixed`` rows are chosen once, when their task ends; or anew for ``each-task``, from the whole
            training sets of the earlier tasks.
        rehearsed_only: learn what is chosen of all tasks and nothing else, where they are learned at once.
    """

    resample: Literal["fixed", "each-task"] = "fixed"
    rehearsed_only: bool = False

    @abstractmethod
    def choose(self, targets: Sequence[str], draw: random.Random) -> list[int]:
        """Return which rows of a finished task, given by their labels, are stored: indices, in any order.

        Where answers are free text, ``targets`` are empty: all rows are of one kind.
        """


class StepRule(Part, role=True):
    """Looks at every optimiser step, and moves the weights when a block of steps is over.

    What is trained is seen as one vector (P,), all modules together; a classification head is not part of it. The
    rule acts while something is rehearsed; without rehearsed rows there are no blocks.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import torch
    >>> from everlora.roles import StepRule
    >>> @dataclass(frozen=True, kw_only=True)
    ... class HalfWay(StepRule):
    ...     name: ClassVar[str] = "half_way"
    ...     inner: int = 4
    ...     outer: int = 1
    ...     def before(self, block, weights, gradient, state):
    ...         return {"start": weights} if block.opens else state
    ...     def after(self, weights, state):
    ...         return (state["start"] + weights) / 2
    >>> HalfWay().after(torch.tensor([4.0]), {"start": torch.tensor([0.0])})
    tensor([2.])
    """

    @attribute
    @abstractmethod
    def inner(self) -> int:
        """Return how many steps on new rows a block begins with."""

    @attribute
    @abstractmethod
    def outer(self) -> int:
        """Return how many steps on rehearsed rows follow them."""

    @abstractmethod
    def before(self, block: BlockStep, weights: Tensor, gradient: Tensor, state: State) -> State:
        """Return the state when a step is about to be taken; ``state`` is empty at first.

        ``gradient`` is that of the task's own loss at ``weights``: before penalties, transforms and clipping.
        """

    @abstractmethod
    def after(self, weights: Tensor, state: State) -> Tensor:
        """Return the weights after a block that ended at ``weights``."""


class Merge(Part, role=True):
    """Makes one weight of the tasks' updates where it is not simply their sum.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> import torch
    >>> from everlora.roles import Merge
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Latest(Merge):
    ...     name: ClassVar[str] = "latest"
    ...     train: ClassVar[str] = "sum"
    ...     infer: ClassVar[str] = "merged"
    ...     def merge(self, updates):
    ...         return list(updates)[-1]
    >>> Latest().merge([torch.zeros(1, 2), torch.ones(1, 2)])
    tensor([[1., 1.]])
    """

    associative: ClassVar[bool] = False  # whether merge([merge(all but one), the newest]) is merge(all)

    @attribute
    @abstractmethod
    def train(self) -> View:
        """Return what a new task is trained on top of: the plain ``sum`` of the past, or the past ``merged``."""

    @attribute
    @abstractmethod
    def infer(self) -> View:
        """Return what answers: the plain ``sum`` of all updates, or what they are ``merged`` into."""

    @abstractmethod
    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        """Merge dense updates (..., o, i), oldest first; they may be drawn one at a time."""


__all__ = [
    "GradientTransform",
    "Initialiser",
    "Merge",
    "OutputPenalty",
    "Rehearsal",
    "StepRule",
    "WeightPenalty",
]
