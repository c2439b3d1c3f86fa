"""Defines the records of a run folder: environment, commits, predictions. See also `identity`, `results`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from everlora.archive.schema import OpenRecord, Record, loaded
from everlora.core.plain import JsonObject

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
    evaluate: float


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

    Attributes:
        error: over all modules.
        worst: of the worst module, which is ``module``.
    """

    error: float
    worst: float
    module: str


class Holdings(Record):
    """Holds what a learner holds after a task, see `everlora.analysis.holdings`.

    Attributes:
        kept_bytes: what the next task needs of the earlier ones.
        memory_error: by part that remembers the past in a form of its own.
        room: directions that are left; None where no low-rank updates are trained.
    """

    kept_bytes: int
    memory_error: dict[str, MemoryLoss] = Field(default_factory=dict)
    room: Room | None = None


class TaskPrompt(Record):
    """Holds what a task shows a model around its rows, see `everlora.data.task.Task`."""

    form: str = "labelled"
    instruction: str = ""
    labels: list[str] = Field(default_factory=list)


class TaskMetadata(Record):
    """Holds what is known of the tasks that a stage learns, by their names.

    Attributes:
        data: digests of rows, labels, instruction and metric.
        chance: percent of guessing, where it is known.
        metric: how answers are scored, where it is not the default.
        left_out: how many rows of the source are not in the task, by reason.
        max_new_tokens: the length of free answers, where the targets made it longer than 50 tokens.
        label_rows: rows of a classification head that stand for the labels, in their order.
        prompts: what a card says of how each task is put to the model; not there in older folders.
    """

    data: dict[str, str]
    chance: dict[str, float] = Field(default_factory=dict)
    metric: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)
    max_new_tokens: dict[str, int] = Field(default_factory=dict)
    label_rows: dict[str, list[int]] = Field(default_factory=dict)
    prompts: dict[str, TaskPrompt] = Field(default_factory=dict)


class ProbedRise(Record):
    """Holds what rows of earlier tasks that are stored to be looked at showed of a budget's prediction.

    Attributes:
        losses: by task, of its stored rows when the stage ended, in nats.
        real_rise: what the mean losses of all earlier tasks together rose by in this stage; None of the first.
        error: standard error of that, as so few rows show it.
        calibration: by which the prediction was multiplied meanwhile: how far off those before had been.
    """

    losses: dict[str, list[float]]
    real_rise: float | None = None
    error: float = 0.0
    calibration: float = 1.0


class StageFacts(TaskMetadata):
    """Holds what a finished stage says of itself.

    Attributes:
        row: of the matrix.
        fingerprint: how it was made.
        general: measures of general ability, where it is measured.
        labels: of the trained head, by row.
        seconds: how long it took; one number where nothing is trained.
        warning: what the learner found amiss.
        strengths: those that penalties have found, by part.
        predicted_rise: nats per row that the losses of all earlier tasks together are predicted to have risen by when
            the task was learned; None where no part predicts that.
        probed: the same as it really was, where a budget has ``probes``.
        epochs: that the task's number of rows made, where the settings have neither epochs nor steps.
        cut: training texts that were cut to the longest that is read.
        kept_rows, kept_row_bytes: rows of the task that are kept, to be learned again or to be looked at.
        written_rows: by earlier task, what the model wrote of it; None where it writes nothing.
        holdings: what the learner holds now.
    """

    row: list[Score]
    fingerprint: Fingerprint | None = None
    general: dict[str, float] | None = None
    labels: list[str]
    seconds: Seconds | float
    warning: str | None
    strengths: dict[str, Strength]
    cut: int
    predicted_rise: float | None = None
    probed: ProbedRise | None = None
    epochs: int | None = None
    kept_rows: int = 0
    kept_row_bytes: int = 0
    written_rows: dict[str, WrittenRows] | None = None
    holdings: Holdings | None = None


class BaselineFacts(Record):
    """Holds what was measured before the first task: scores of the base model, and digests of its answers."""

    base: dict[str, float]
    data: dict[str, str]
    fingerprint: Fingerprint | None = None
    general: dict[str, float] | None = None


class Seal(Record):
    """Holds what every COMMIT says first: whose it is, and the hashes of the other files of its folder."""

    run: str
    number: int
    name: str
    files: dict[str, str]

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        if "run" not in content:  # schema 1
            content["run"] = loaded(path.parents[2] / "run.yaml")["id"]
        # Schema 2: the commit of a stage that trains nothing had no entries of training.
        return {"warning": None, "strengths": {}, "cut": 0, **content}


class Commit(StageFacts, Seal):
    """Holds what tasks/NN-name/COMMIT says of a finished stage."""


class Baseline(BaselineFacts, Seal):
    """Holds what before/COMMIT says was measured before the first task."""
