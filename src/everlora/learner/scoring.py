"""Scores tasks after a stage, and commits what was answered: by itself, for what was learned stands already."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from everlora.archive.answers_so_far import AnswersSoFar
from everlora.archive.commits import Scored
from everlora.archive.committed import PREDICTIONS, Committed
from everlora.archive.schema import write_rows
from everlora.data.task import Task
from everlora.evaluation.scoring import TaskScore
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.models.environment import fingerprint
from everlora.runtime import world
from everlora.runtime.progress import spent, warn
from everlora.training.alarms import after_scoring
from everlora.training.stages import Stage, matrix_row, stages, tasks_to_evaluate

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner
    from everlora.learner.state import LearnerState


def score(
    learner: SequentialLearner, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix, model: nn.Module
) -> list[Cell]:
    """Score tasks after a committed stage, take the adapter off, commit what was answered; return its row."""
    with goes_on(learner, stage.number):
        return _score(learner, stage, tasks, matrix, model)


@contextmanager
def goes_on(learner: SequentialLearner, number: int) -> Iterator[None]:
    """Keep the answers of an evaluation after a task while it goes on, and take those of one that was broken off."""
    if world.size() > 1:
        yield
        return
    committed = [one.seal.commit for one in learner.folder.stages()[:number]]
    how, evaluator = learner.evaluator.settings, learner.evaluator
    made = fingerprint(learner.base, how.scoring, None).plain()
    key = hashlib.sha256(repr([learner.folder.id, committed, how.model_dump(), made]).encode()).hexdigest()
    evaluator.so_far = so_far = AnswersSoFar(learner.folder.path, key)
    try:
        yield
        so_far.clear()
    except BaseException:
        so_far.write()
        raise
    finally:
        evaluator.so_far = None


def _score(
    learner: SequentialLearner, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix, model: nn.Module
) -> list[Cell]:
    started = time.perf_counter()
    try:
        scores = evaluate(learner, model, stage, tasks)
    finally:
        learner.backend.detach()
    row = matrix_row(stage, tasks, {score.task: score.score for score in scores}, matrix, learner.method)
    correct = {score.task: score.correct for score in scores}
    trained = learner.folder.stages()[stage.number - 1].facts.warning
    amiss = after_scoring(stage.tasks, correct, learner.spec.evaluation.split, trained) if stage.trains else []
    facts = Scored(
        row=row,
        fingerprint=learner.evaluator.fingerprint(),
        general=learner.evaluator.general,
        seconds=time.perf_counter() - started,
        warning="; ".join(warn(learner.progress, stage.name, amiss)) or None,
        counts=list(matrix.counts),
    )

    @spent("saving")
    def write() -> None:  # all processes know the row; one of them writes
        with learner.folder.commit_evaluation(learner.folder.stages()[stage.number - 1], facts) as path:
            write_rows(path / PREDICTIONS, [answer for score in scores for answer in score.rows()])

    world.on_main(write)
    learner.progress.info(f"{stage.number}. {stage.name}: {learner.evaluator.summary(scores)}")
    return row


@spent("answering")
def evaluate(learner: SequentialLearner, model: nn.Module, stage: Stage, tasks: Sequence[Task]) -> list[TaskScore]:
    """Score the tasks that the schedule wants scored after this stage, as far as their rows are at hand."""
    following, schedule = learner.evaluator.scores_next_task, learner.spec.evaluation.schedule
    wanted = tasks_to_evaluate(stage, tasks, schedule, learner.method, following)
    here = [task for task in wanted if len(getattr(task, learner.spec.evaluation.split))]
    return learner.evaluator.evaluate(model, here, learner.progress)


def count_rows(tasks: Sequence[Task], committed: Sequence[Committed], split: str) -> list[int]:
    """Count the rows that each task is scored on; of one whose rows are gone, those that it was learned with."""
    cards: dict[str, int] = {}
    for stage in committed:
        cards |= {name: card.rows.get(split, 0) for name, card in stage.facts.cards.items()}
    return [len(getattr(task, split)) or cards.get(task.name, 0) for task in tasks]


def committed_matrix(learner: LearnerState, tasks: Sequence[Task]) -> ScoreMatrix:
    """Return the matrix that the committed tasks of a learner make, with the counts of the evaluation that is newest.

    Rows that are at hand now may be fewer; they count where no evaluation says how many there were.
    """
    committed = learner.folder.stages()
    noted = (list(stage.counts[: len(tasks)]) for stage in reversed(committed) if len(stage.counts) >= len(tasks))
    counts = next(noted, None) or count_rows(tasks, committed, learner.spec.evaluation.split)
    matrix = ScoreMatrix.empty([task.name for task in tasks], counts)
    for stage, done in zip(stages(learner.method, tasks), committed, strict=False):
        matrix = matrix.with_row(stage.row, [*done.facts.row, *[None] * len(tasks)][: len(tasks)])
    return matrix
