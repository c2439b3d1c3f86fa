"""Defines what a part may be able to do in addition to its role; a part inherits the abilities that it has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from everlora.core.roles.contract import Part, attribute
from everlora.core.roles.primary import Rehearsal
from everlora.core.roles.values import NO_EVIDENCE, Evidence, EvidenceKind
from everlora.core.updates import LowRank, State

ActivationSource = Literal["combined", "lora_only", "random"]


class HasMemory(Part, ability=True):
    """Carries something of its own from task to task, in addition to the tasks' updates.

    The memory is one of each adapted module: tensors by name, of whatever shape, which may differ from module to
    module. It is stored in the run folder with the task, and a resumed run reads it from there.
    """

    @abstractmethod
    def remember(self, update: LowRank, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        """Return the memory of one module after a task.

        Args:
            update: what the task added; where one adapter is trained on and on, this adapter.
            memory: that of the task before. Empty after the first task, and where one adapter is trained on and on,
                unless the part declares ``Needs(cumulative_memory=True)``.
            evidence: what the part wants measured (`NeedsEvidence`).
        """

    @abstractmethod
    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        """Return how many bytes are stored of one module of shape (out, into) after ``tasks`` updates of this rank.

        An adapter that is trained on and on counts as one update. Where the size depends on the data, the part
        declares ``Needs(memory_at_most=True)``, and this is the most that it can be.
        """


class NeedsEvidence(Part, ability=True):
    """Looks at a few rows of a task once it has been learned (or, an initialiser, before it is).

    The rows are drawn from the run's seed. An initialiser is shown them before the task, at the weights of the task
    before; a part that has a memory is shown them after the task.

    Attributes:
        per_sample: of ``gradients``, those of each row's loss instead of that of their mean.
    """

    per_sample: bool = False

    @attribute
    @abstractmethod
    def evidence(self) -> EvidenceKind:
        """Return which field of `Evidence` is measured: ``gradients``, ``fisher``, ``moment`` or ``curvature``."""

    @attribute
    @abstractmethod
    def samples(self) -> int:
        """Return how many training rows are looked at."""

    def root_columns(self, n: int) -> int | None:
        """Return in how many columns a factor (n, n) of ``curvature`` is measured; None: as the matrix that it is.

        What they cannot hold is left out and counted (`SymmetricRoot`).
        """
        return None


class NeedsActivations(Part, ability=True):
    """Sees, before it shapes a gradient, how strongly each row of what is trained has answered.

    By live tensor: Σ |z| of the n outputs z that its rows make, over all tokens but padding, since the last step, of
    all micro-batches and processes.
    """

    @abstractmethod
    def look(self, magnitudes: State, state: State) -> State:
        """Return the constants of this step; ``magnitudes`` are (L, n) by live tensor, infinite where no output is.

        ``state`` are the constants that `prepare` made for the task.
        """

    @attribute
    @abstractmethod
    def probe(self) -> ActivationSource:
        """Return which outputs are measured of B (of a full weight).

        ``combined``, those of the whole layer, W x + ΔW x; ``lora_only``, those of the update, ΔW x; or ``random``, no
        outputs: uniform draws in the place of all magnitudes, from the run's seed.
        """


class HasEnergy(Part, ability=True):
    """Weighs every entry of an update by an energy that it sees in the past; it is a penalty."""

    @abstractmethod
    def weigh(self, total: Tensor) -> Tensor:
        """Return E of W_past, (..., o, i) to the same shape, at least 0."""


class PredictsRise(Part, ability=True):
    """Predicts, by its value at strength 1, how much the losses of earlier tasks rise; it is a penalty.

    In nats per row, summed over the earlier tasks. A `Budget` holds it down, of its own penalty or of another one.
    """

    @abstractmethod
    def earlier_tasks(self, state: State) -> int:
        """Return over how many earlier tasks the prediction of ``state``, made by `prepare`, is summed."""


class HasCapacity(Part, ability=True):
    """Leaves fewer directions to learn in with every task; it is a transform."""

    @abstractmethod
    def free(self, state: State) -> Tensor:
        """Return the number of directions left per module, (L,)."""


class GrowsWithPast(Part, ability=True):
    """Has constants that are those of one task fewer, extended: a new task costs as much as one, whatever came before.

    `prepare` starts from nothing and extends by one earlier task after the other.
    """

    @abstractmethod
    def extend(self, state: State | None, update: LowRank) -> State:
        """Return the constants with one more earlier task in them; ``state`` is left as it is.

        Args:
            state: of the tasks before; None before the first.
            update: what the task has added to ``L`` modules of one shape.
        """


class ReconstructsPast(Part, ability=True):
    """Reconstructs W_past from its memory, exactly or nearly; how nearly, ``everlora status`` measures."""

    @abstractmethod
    def reconstruct(self, memory: State) -> Tensor:
        """Return W_past as it is remembered, (..., o, i)."""


class BoundsMemoryError(Part, ability=True):
    """Rounds what it remembers, and tells from its memory how far off that is at most, for ``everlora status``."""

    @abstractmethod
    def error_bound(self, memory: State) -> tuple[float, float] | None:
        """Return a bound of the norm of what one module's memory lacks, and the norm of what it holds.

        None means that nothing was rounded.
        """


class PostProcesses(Part, ability=True):
    """Changes an adapter that is trained on and on once a task has ended: this is what answers.

    What was trained it may remember, to go on from there (as the initialiser of the next task).
    """

    @abstractmethod
    def finish(self, update: LowRank, answered: LowRank | None, number: int) -> LowRank:
        """Return what answers from now on, for one module.

        Args:
            update: as it was trained.
            answered: what answered after the task before; None after the first.
            number: of the task, from 1.
        """


class GenerativeReplay(Rehearsal, ability=True):
    """Stores no rows, unlike other rehearsals: before a new task, the model writes some of each earlier one.

    To be able to, it learns with every task to write that task's rows. What is minimised is
    (1 − κ) · (L_task + η · L_writing), each a mean over its own answer tokens; κ is 0 where nothing was written.
    """

    @abstractmethod
    def cue(self, task: str) -> str:
        """Return the text from which rows of the task of this name are written."""

    @abstractmethod
    def written(self, text: str, target: str) -> str:
        """Return a row as it is written behind its cue."""

    @abstractmethod
    def read(self, text: str, labels: Sequence[str]) -> tuple[str, str] | None:
        """Return text and answer of what was written; None if it is no row.

        ``labels`` is empty where answers are free text.
        """

    @attribute
    @abstractmethod
    def eta(self) -> float:
        """Return η, the weight of learning to write."""

    @attribute
    @abstractmethod
    def kappa(self) -> float:
        """Return κ, the weight of the rows that were written."""

    @attribute
    @abstractmethod
    def per_class(self) -> int:
        """Return how many rows are taken of each label."""

    @attribute
    @abstractmethod
    def tries(self) -> int:
        """Return how many texts are written of each earlier task."""

    @attribute
    @abstractmethod
    def top_k(self) -> int:
        """Return among how many of the most likely tokens one is drawn."""

    @attribute
    @abstractmethod
    def length(self) -> int:
        """Return how many tokens of a row's text are learned, and how many are written."""


__all__ = [
    "ActivationSource",
    "BoundsMemoryError",
    "GenerativeReplay",
    "GrowsWithPast",
    "HasCapacity",
    "HasEnergy",
    "HasMemory",
    "NeedsActivations",
    "NeedsEvidence",
    "PostProcesses",
    "PredictsRise",
    "ReconstructsPast",
]
