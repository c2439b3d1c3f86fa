"""Defines matrix.json: the primary result of a run, and all that a reader of it must know."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from everlora.archive.identity import RunProtocol
from everlora.archive.records import Fingerprint, Score
from everlora.archive.schema import Record, renamed
from everlora.core.plain import JsonObject
from everlora.settings.spec import Schedule


class ScoredProtocol(RunProtocol):
    """Holds a run's protocol, with how it was evaluated."""

    schedule: Schedule
    scoring: str
    batch_size: int
    split: str
    general: str | None
    general_tasks: list[str] | None


class Fingerprints(Record):
    """Holds how the rows of the matrix were made: each row's hash, or None; fingerprints by hash."""

    rows: list[str | None]
    of: dict[str, Fingerprint]


class GeneralAbility(Record):
    """Holds measures of general ability before the first task and after each stage, and their differences."""

    before: dict[str, float] | None
    after: list[dict[str, float] | None]
    delta: list[dict[str, float] | None]


class ReferenceScores(Record):
    """Holds scores that the matrix is compared with, where known: one a task, in order, or None.

    Attributes:
        base: of the base model.
        chance: of guessing.
        single: of models that learned the task alone.
        general: general ability.
        cut: training texts that were cut to ``max_source_length``, by stage.
    """

    base: list[Score] | None = None
    chance: list[Score] | None = None
    single: list[Score] | None = None
    general: GeneralAbility | None = None
    cut: dict[str, int] = Field(default_factory=dict)


class Storage(Record):
    """Holds what is kept for the next task.

    Attributes:
        stored_elements: of past updates; of the one adapter where it is trained on and on.
        adapter_elements: of one adapter.
        memory_bytes: of these updates in fp32, of what parts remember, and of rows.
        stored_rows, stored_row_bytes: rows of data that are kept, if any.
    """

    stored_elements: int
    adapter_elements: int
    memory_bytes: int
    stored_rows: int = 0
    stored_row_bytes: int = 0


class ExportLoss(Record):
    """Holds what the adapter at the root of the folder has lost, where it is a merge at limited rank."""

    export_rank: int | None = None
    export_error: float | None = None


class RootFiles(Record):
    """Holds what the learner at the root of the folder is made of: hashes by file, and after how many stages."""

    stages: int
    digests: dict[str, str]


class LearnerFacts(Storage, ExportLoss):
    """Holds what is written of a learner; entries with a default came with the end of a run (schema 2).

    Attributes:
        method, model, family: by name.
        task_id_at_inference: whether answers need the task id.
        replay: whether rows of earlier tasks are seen again.
        protocol: by which figures may be compared.
        labels: of the exported head, by row.
    """

    method: str = ""
    model: str = ""
    family: str = ""
    task_id_at_inference: bool | None = None
    replay: bool | None = None
    protocol: ScoredProtocol | RunProtocol | None = None
    labels: list[str] | None = None


class MatrixRecord(LearnerFacts, ReferenceScores):
    """Holds what matrix.json says.

    Attributes:
        id: of the run.
        tasks, counts: names in the order of learning, and how many rows were answered of each.
        matrix: row i holds the scores after stage i, percent.
        metrics: by id, see `everlora.metrics.matrix`.
        fingerprints: how each row was made.
        order_digest: hash of names and data of the tasks in order; None until all of them were learned.
        metric, left_out, label_rows: by task, where there is something to say, see `TaskMetadata` of
            `everlora.archive.records`.
        root: the files at the root of the folder; None where nothing is trained, and in older folders.
    """

    id: str
    tasks: list[str]
    counts: list[int]
    matrix: list[list[Score]]
    metrics: dict[str, Score]
    fingerprints: Fingerprints = Fingerprints(rows=[], of={})
    order_digest: str | None = None
    metric: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)
    label_rows: dict[str, list[int]] = Field(default_factory=dict)
    root: RootFiles | None = None

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        return renamed(content)
