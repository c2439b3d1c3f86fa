"""Defines the records of a run folder: environment, answers, what a learner holds. See also `commits`, `results`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from everlora.archive.schema import OpenRecord, Record

Score = float | None
"""Percent; None where nothing was measured."""
Strength = float | dict[str, float]
"""The strength of a penalty: one number, or one per module."""


class PrecisionRecord(Record):
    """Holds the type of the base weights, and the kind of device that computes."""

    weights: str
    device: str


class BaseFilesRecord(Record):
    """Holds what the base model was read from: SHA-256 of its files by name, and their commit of the hub."""

    digests: dict[str, str]
    commit: str | None = None


class Environment(Record):
    """Holds what environment.json says: versions and machine.

    Attributes:
        newly_initialised: tensors before a classification head that the checkpoint has no weights for, drawn from a
            fixed seed.
        pooling: what an encoder's head reads.
        base_files: what the base model was read from.
    """

    python: str
    platform: str
    packages: dict[str, str | None]
    threads: int
    processes: int
    precision: PrecisionRecord | None = None
    family: str | None = None
    newly_initialised: tuple[str, ...] = ()
    pooling: Literal["mean", "cls", "head"] | None = None
    base_files: BaseFilesRecord | None = None


class Fingerprint(OpenRecord):
    """Holds how scores were made: backend, device, precision, evaluator and versions.

    Attributes:
        batch_invariant: whether rows were answered alone as they were among others; None where nobody looked.

    Where answers are text there are also ``end_tokens``, at which an answer ends; ``max_new_tokens``, its length;
    ``decoder_start_token``, which a decoder behind an encoder reads first; and ``chat_date``, the day that a chat
    template which asks for it is given.
    """

    backend: str
    weights: str
    device: str
    attention: str | None
    scoring: str
    batch_invariant: bool | None
    versions: dict[str, str | None]


class AnswerRow(Record):
    """Holds a row of predictions.jsonl.

    Attributes:
        correct: whether the answer exactly matches one that is accepted, whatever the metric.
        metric, score: the task's metric and what it gives this row, percent, where ``correct`` does not say all.
        share: what the row adds to a score that is no mean over rows, percent.
    """

    task: str
    row: int
    target: str
    prediction: str
    correct: bool
    metric: str | None = None
    score: float | None = None
    share: float | None = None

    @property
    def mark(self) -> float:
        """Return what the row adds to the score, 0 to 1: its share, else its score, else whether it is right."""
        found = next((value for value in (self.share, self.score) if value is not None), 100.0 * self.correct)
        return found / 100.0


class Seconds(Record):
    """Holds how long a task took."""

    train: float
    evaluate: float = 0.0


class WrittenRows(Record):
    """Counts the texts that a model wrote of an earlier task, and how many of them were rows."""

    written: int
    valid: int


FEW_TASKS = 3
"""A module with room for fewer tasks than this is worth a warning."""


class FreeDirections(Record):
    """Holds the room left in one module: directions that no task uses, their share, and for how many tasks."""

    module: str
    free: float
    directions: int
    tasks_left: int


class Room(Record):
    """Holds the room that a learner's updates leave.

    Attributes:
        rank: of the latest task's updates.
        hard: whether the method learns in free directions only.
        modules: every adapted module.
    """

    rank: int
    hard: bool
    modules: list[FreeDirections]


class MemoryLoss(Record):
    """Holds how far off a part's own form of the past is: ‖W_past − what it remembers‖_F / ‖W_past‖_F.

    Of a curvature it is a bound, over the norm of what is remembered, since nothing else holds the whole one.

    Attributes:
        error: over all modules.
        worst: of the worst module, which is ``module``.
        at_most: whether it is a bound.
    """

    error: float
    worst: float
    module: str
    at_most: bool = False


class SumRank(Record):
    """Holds the numerical rank of the sum of all updates, over the adapted modules."""

    least: int
    median: float
    most: int


class Holdings(Record):
    """Holds what a learner holds after a task, see `everlora.analysis.holdings`.

    Attributes:
        memory_bytes: what the next task needs of the earlier ones.
        memory_error: by part that remembers the past in a form of its own.
        room: directions that are left; None where no low-rank updates are trained.
        rank: of the sum of all updates; None as room, and in folders where it was not measured.
    """

    memory_bytes: int
    memory_error: dict[str, MemoryLoss] = Field(default_factory=dict)
    room: Room | None = None
    rank: SumRank | None = None
