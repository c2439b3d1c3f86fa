"""Reads all that a run's folder records of it, also of one that is not at its end; no model and no method is needed.

Where `everlora.analysis.answers` refuses what cannot stand in a table, this takes what is there: a page about a run is
looked at most while the run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from everlora.analysis.compare import METRICS, RESAMPLES, Interval, RunAnswers, estimate
from everlora.archive.commits import Commit
from everlora.archive.committed import Committed
from everlora.archive.folder import ENVIRONMENT, read_matrix, read_run, stages
from everlora.archive.history import Act, read_history
from everlora.archive.identity import RunRecord
from everlora.archive.records import AnswerRow, Environment, Seconds
from everlora.archive.results import MatrixRecord
from everlora.archive.schema import read_json, read_rows
from everlora.core.errors import FolderError
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.settings.spec import RunSpec

PENALTY, STRENGTH = "penalty/", "lam/"


@dataclass(frozen=True)
class LoggedStep:
    """Holds what was logged at one step of a task's training; None where it was not.

    Attributes:
        step: within the task.
        loss: mean over the steps since the last one that was logged.
        rho: norm of the penalties' gradient over that of the task's.
        penalties, strengths: by part.
    """

    step: int
    loss: float
    rho: float | None
    penalties: Mapping[str, float]
    strengths: Mapping[str, float]


@dataclass(frozen=True)
class ModuleStep:
    """Holds a row of modules.jsonl, see `everlora.training.chain.ModuleRow`."""

    step: int
    module: str
    penalty: float
    rho: float
    update_norm: float


@dataclass(frozen=True)
class RecordedStage:
    """Holds one stage: what its COMMIT says, how training went, and what was answered after it.

    Attributes:
        facts: of the COMMIT, with the newest scores.
        path: its folder.
        steps: how many steps it was trained for; 0 where nothing was logged.
        log, modules: as they were logged.
        answers: every row that was answered after it.
    """

    facts: Commit
    path: Path
    steps: int
    log: Sequence[LoggedStep]
    modules: Sequence[ModuleStep]
    answers: Sequence[AnswerRow]

    @property
    def train_seconds(self) -> float:
        """Return the seconds of its training."""
        return self.facts.seconds.train if isinstance(self.facts.seconds, Seconds) else 0.0

    @property
    def evaluate_seconds(self) -> float:
        """Return the seconds that its answers took."""
        return self.facts.seconds.evaluate if isinstance(self.facts.seconds, Seconds) else self.facts.seconds


@dataclass(frozen=True)
class RecordedRun:
    """Holds a run as its folder records it.

    Attributes:
        path: the folder.
        record: what run.yaml says.
        results: what matrix.json says.
        matrix: the scores.
        environment: None where it was not noted.
        stages: that are finished, in order.
        acts: what was done to a learner that is taught task by task; empty of a run that followed a benchmark.
        intervals: of the metrics, over resampled test rows; None where one is undefined.
    """

    path: Path
    record: RunRecord
    results: MatrixRecord
    matrix: ScoreMatrix
    environment: Environment | None
    stages: Sequence[RecordedStage]
    acts: Sequence[Act]
    intervals: Mapping[str, Interval | None]

    @property
    def joint(self) -> bool:
        """Return whether all tasks were learned, or only answered, at once."""
        return self.record.composition.regime != "sequence"

    @property
    def method(self) -> str:
        """Return the method, with its options where some were given."""
        return self.record.settings.method

    @property
    def benchmark(self) -> str | None:
        """Return the benchmark that was followed; None of a learner."""
        settings = self.record.settings
        return str(settings.benchmark) if isinstance(settings, RunSpec) else None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of all tasks, also of those to come."""
        return self.matrix.tasks

    @property
    def learned(self) -> int:
        """Return how many tasks were learned."""
        return sum(len(stage.facts.data) for stage in self.stages)

    @property
    def finished(self) -> bool:
        """Return whether every task was learned, and what was learned last was scored."""
        return self.learned >= len(self.tasks) and any(cell is not None for cell in self.matrix.final)

    @property
    def last_row(self) -> int:
        """Return the number of the last row of the matrix in which something was measured, from 0."""
        known = [i for i, row in enumerate(self.matrix.cells) if any(cell is not None for cell in row)]
        return known[-1] if known else 0

    @property
    def now(self) -> tuple[Cell, ...]:
        """Return by task the score that was measured last."""
        return tuple(
            next((row[j] for row in reversed(self.matrix.cells) if row[j] is not None), None)
            for j in range(len(self.tasks))
        )


def recorded(path: Path) -> RecordedRun:
    """Read a run, finished or not.

    Raises:
        FolderError: no run, damaged, or nothing learned yet.
    """
    record, done = read_run(path), stages(path)
    if not done:
        raise FolderError(f"{path} holds no learned task yet; a report is of what was learned")
    results = read_matrix(path)
    if [len(row) for row in results.matrix] != [len(results.tasks)] * len(results.tasks):
        raise FolderError(
            f"{path / 'matrix.json'} is damaged: {len(results.tasks)} tasks need as many rows and columns"
        )
    counts = (*results.counts, *[0] * len(results.tasks))[: len(results.tasks)]
    matrix = ScoreMatrix(tuple(results.tasks), tuple(counts), tuple(tuple(row) for row in results.matrix))
    place = path / ENVIRONMENT
    found = [_stage(stage) for stage in done]
    return RecordedRun(
        path=path,
        record=record,
        results=results,
        matrix=matrix,
        environment=read_json(Environment, place) if place.is_file() else None,
        stages=found,
        acts=read_history(path) if not isinstance(record.settings, RunSpec) else [],
        intervals=_intervals(matrix, found, record),
    )


def _stage(stage: Committed) -> RecordedStage:
    log, modules = stage.path / "training.jsonl", stage.path / "modules.jsonl"
    logged = [_logged(row) for row in _objects(log)] if log.is_file() else []
    return RecordedStage(
        facts=stage.facts,
        path=stage.path,
        steps=max((one.step for one in logged), default=0),
        log=[one for one in logged if not np.isnan(one.loss)],
        modules=[_module(row) for row in _objects(modules)] if modules.is_file() else [],
        answers=read_rows(AnswerRow, stage.predictions) if stage.predictions.is_file() else [],
    )


def _objects(path: Path) -> list[Mapping[str, object]]:
    """Read JSON Lines that the training loop of transformers fills, whose keys are whatever was logged."""
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise FolderError(f"{path} is damaged; restore it from a copy") from error


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _logged(row: Mapping[str, object]) -> LoggedStep:
    """Return a logged step; its loss is NaN in the last row, which sums training up."""
    return LoggedStep(
        step=int(_number(row.get("step", 0))),
        loss=_number(row.get("loss")),
        rho=_number(row["rho"]) if "rho" in row else None,
        penalties={name.removeprefix(PENALTY): _number(v) for name, v in row.items() if name.startswith(PENALTY)},
        strengths={name.removeprefix(STRENGTH): _number(v) for name, v in row.items() if name.startswith(STRENGTH)},
    )


def _module(row: Mapping[str, object]) -> ModuleStep:
    values = (_number(row.get(key)) for key in ("penalty", "rho", "update_norm"))
    return ModuleStep(int(_number(row.get("step", 0))), str(row.get("module", "")), *values)


def _intervals(matrix: ScoreMatrix, found: Sequence[RecordedStage], record: RunRecord) -> dict[str, Interval | None]:
    """Resample the rows that were answered; an interval is left out where the rows are not those of the matrix."""
    cells: dict[tuple[int, int], np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    last = len(matrix.tasks) - 1
    for stage in found:
        i = stage.facts.number - 1 if record.composition.regime == "sequence" else last
        for j, name in enumerate(matrix.tasks):
            marks = np.array([row.mark for row in stage.answers if row.task == name])
            score = matrix.cells[i][j] if i <= last else None
            if len(marks) and score is not None and abs(100 * marks.mean() - score) < 1e-3:
                cells[i, j] = marks
    for i in range(1, len(matrix.tasks)):
        for j in range(len(matrix.tasks)):  # a task id chooses an adapter that has answered these rows before
            if matrix.cells[i][j] is not None and (i, j) not in cells and (i - 1, j) in cells:
                cells[i, j] = cells[i - 1, j]
    if not cells:
        return dict.fromkeys(METRICS)
    known = estimate([RunAnswers(record.settings.seed, matrix.tasks, cells)], resamples=RESAMPLES)
    return {metric: known.interval(metric) for metric in METRICS}
