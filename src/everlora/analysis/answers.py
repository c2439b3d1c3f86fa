"""Reads what finished runs answered from their folders; no method needs to be at hand for that, and no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from everlora.analysis.ability import change
from everlora.analysis.compare import Marks, RunAnswers
from everlora.archive.committed import Committed
from everlora.archive.folder import read_matrix, read_run, stages
from everlora.archive.identity import Composition
from everlora.archive.records import AnswerRow, Fingerprint
from everlora.archive.results import MatrixRecord
from everlora.archive.schema import Record, read_rows
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject
from everlora.metrics.texts import visible
from everlora.settings.spec import LearnerSpec

CLOSE = 1e-3
"""Percentage points by which a score and its rows, which are written to six decimals, may differ."""
UNKNOWN = "unknown"
"""In place of a hash that an older everlora did not write."""


class ComparedProtocol(Record):
    """Holds what must agree before figures may stand in one table: rows, and how they are read and scored."""

    model: str
    revision: str | None = None
    benchmark: str | None = None
    stream_seed: int | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    max_train_per_class: int | None = None
    max_eval_per_class: int | None = None
    metric: str | None = None
    prompt: str | None = None
    max_source_length: int | None = None
    max_new_tokens: int | None = None
    scoring: str | None = None
    split: str | None = None
    rows: dict[str, str]

    @classmethod
    def of(cls, settings: LearnerSpec, rows: Mapping[str, str]) -> ComparedProtocol:
        """Take from settings what must agree; ``rows`` are digests of the tasks by name."""
        own = {name: getattr(settings, name) for name in cls.model_fields if name in type(settings).model_fields}
        how = settings.evaluation
        return cls(**own, scoring=how.scoring, split=how.split, rows={name: rows[name] for name in sorted(rows)})


@dataclass(frozen=True)
class ScoredRun:
    """Holds a finished run as far as a comparison needs it.

    Attributes:
        path: the folder.
        method: its name; with its options as they were typed, if it has any.
        group: the section of the table.
        composition: what tells methods of one name apart.
        protocol: what must agree before figures may stand in one table.
        settings: all that was set.
        hash: of the protocol with all that was trained by, see `everlora.settings.protocol`.
        fingerprints: how its scores were made, by hash; None of an older everlora, which did not say.
        answers: how each row was answered.
        ability: change of general ability by measure.
    """

    path: Path
    method: str
    group: str
    composition: Composition
    protocol: ComparedProtocol
    settings: LearnerSpec
    hash: str
    fingerprints: Mapping[str, Fingerprint | None]
    answers: RunAnswers
    ability: Mapping[str, float]

    @property
    def training(self) -> JsonObject:
        """Return how it was trained, which tells runs of one method apart."""
        plain: JsonObject = self.settings.model_dump(mode="json", include={"train", "train_of", "lora"})
        return plain


def find(paths: Iterable[Path]) -> list[Path]:
    """Find the runs that paths name: run folders, and folders that hold run folders.

    Raises:
        FolderError: there is no run in one of them.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / "run.yaml").is_file() else _outermost(p.parent for p in path.glob("**/run.yaml"))
        if not inside:
            raise FolderError(f"{path} holds no run of everlora; name run folders, or a folder of them")
        found += inside
    # Named as they were given: a page that is shared need not tell how a machine is laid out.
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that lie in no other one: the folder of a task has a copy of the run's settings."""
    found = set(folders)
    return sorted(folder for folder in found if found.isdisjoint(folder.parents))


def read(path: Path) -> ScoredRun:
    """Read a finished run.

    Raises:
        FolderError: no run, damaged, or not at its end.
    """
    record, done = read_run(path), stages(path)
    settings, composition = record.settings, record.composition
    results = _finished(path)
    names = tuple(results.tasks)
    if [len(row) for row in results.matrix] != [len(names)] * len(names):
        raise FolderError(f"{path / 'matrix.json'} is damaged: {len(names)} tasks need as many rows and columns")
    sequence = composition.regime == "sequence"
    if len(done) != (len(names) if sequence else 1):
        raise FolderError(f"{path} is not finished: {len(done)} of {len(names)} tasks; go on with it first (--resume)")
    data = {name: digest for stage in done for name, digest in stage.facts.data.items()}
    answers = RunAnswers(settings.seed, names, _cells(done, results, sequence), " ".join(names))
    return ScoredRun(
        path=path,
        method=settings.method if "(" in settings.method else composition.name,
        group=_group(results, composition),
        composition=composition,
        protocol=ComparedProtocol.of(settings, {name: data[name] for name in names}),
        settings=settings,
        hash=record.protocol.hash if record.protocol else UNKNOWN,
        fingerprints=results.fingerprints.of or {UNKNOWN: None},
        answers=answers,
        ability=change(results),
    )


def _finished(path: Path) -> MatrixRecord:
    if not (path / "matrix.json").is_file():
        raise FolderError(f"{path} is not finished: it has no matrix.json; go on with it first (--resume)")
    return read_matrix(path)


def _group(results: MatrixRecord, composition: Composition) -> str:
    """Choose the section of a run: by what its method may use."""
    if results.task_id_at_inference:
        return "task id"
    # The method says it, which knows whose rows they are: those that a model wrote itself are no replay.
    guess = composition.rehearsal is not None or composition.regime == "joint"
    replay = guess if results.replay is None else results.replay
    return "replay" if replay else "replay-free"


def _cells(done: Sequence[Committed], results: MatrixRecord, sequence: bool) -> dict[tuple[int, int], Marks]:
    """Read what each row adds to its cell, 0 to 1; a cell that repeats an earlier answer (task id) has that answer.

    Raises:
        FolderError: rows are missing or of another task, or their mean is not what matrix.json says.
    """
    names, matrix = list(results.tasks), results.matrix
    found: dict[tuple[int, int], Marks] = {}
    for stage in done:
        i = stage.facts.number - 1 if sequence else len(names) - 1
        found |= {(i, j): marks for j, marks in _marks(stage.predictions, names, results.counts).items()}
    for i, scores in enumerate(matrix):
        for j, score in enumerate(scores):
            if score is not None and (i, j) not in found and (i - 1, j) in found:
                found[i, j] = found[i - 1, j]
    for (i, j), cell in found.items():
        noted = matrix[i][j]
        if noted is None or not abs(100.0 * cell.mean() - noted) <= CLOSE:  # no NaN either
            raise FolderError(
                f"{done[0].path.parents[1]}: matrix.json has {noted} for task {names[j]!r} after task {i + 1}, "
                f"its rows come to {100.0 * cell.mean():.4f}; restore the folder, or make the run again"
            )
    return found


def _marks(path: Path, names: Sequence[str], counts: Sequence[int]) -> dict[int, Marks]:
    """Read the marks of a stage's rows by the number of their task, all rows of a task in order.

    Raises:
        FolderError: rows are of no task of the run, or not those that matrix.json counts.
    """
    marks: dict[str, list[float]] = {}
    for row in read_rows(AnswerRow, path):
        values = marks.setdefault(row.task, [])
        if row.task not in names or row.row != len(values):
            raise FolderError(
                f"{path} has row {row.row} of task {visible(row.task)!r} where it cannot be; restore the folder, or "
                f"make the run again"
            )
        values.append(row.mark)
    found = {names.index(task): np.array(values) for task, values in marks.items()}
    for j, cell in found.items():
        if j >= len(counts) or len(cell) != counts[j]:  # rows are drawn in pairs: each stage has to have them all
            raise FolderError(
                f"{path} has {len(cell)} rows of task {names[j]!r}, and matrix.json counts "
                f"{', '.join(map(str, counts))}; restore the folder, or make the run again"
            )
    return found
