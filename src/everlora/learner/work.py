"""Plans what a learner has to do with tasks: rows to train on and rows to answer, and roughly how long that takes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from everlora.analysis.costs import trained_steps
from everlora.archive.committed import Committed
from everlora.data.task import Task
from everlora.metrics.scores import ScoreMatrix
from everlora.models.families.heads import evaluating
from everlora.runtime import world
from everlora.runtime.seeds import seeded
from everlora.runtime.time_left import Plan, Work
from everlora.settings.training import epochs_by_size, numeric_argument
from everlora.training.stages import Stage, tasks_to_evaluate

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner

FORWARDS = 3.0
"""Forward passes that a training step takes as long as: its own, and a backward pass of about two."""
SOME = 8
"""Rows that are read once for a guess of how long a run takes; of answers that are written, half of them."""


def make_plan(learner: SequentialLearner, tasks: Sequence[Task], committed: Sequence[Committed]) -> Plan:
    """Return the plan of what follows the stages that are committed; a guess of its time where progress wants one."""
    works = [_of_stage(learner, stage, tasks) for stage in learner.plan[len(committed) :]]
    names = [task.name for task in tasks]
    return Plan(
        works=works,
        tasks=names,
        done=[_scores(names, stage) for stage in committed],
        folder=learner.folder.path,
        guess=_guess(learner, works, tasks) if learner.progress.guesses and works else None,
        steps=lambda: sum(map(trained_steps, committed)),
        draw=lambda rows: matrix_picture(names, rows),
        known=[stage.row + 1 for stage in learner.plan],
    )


def _of_stage(learner: SequentialLearner, stage: Stage, tasks: Sequence[Task]) -> Work:
    settings = learner.spec.evaluation
    following = learner.evaluator.scores_next_task
    answered = tasks_to_evaluate(stage, tasks, settings.schedule, learner.method, following)
    answers = sum(len(getattr(task, settings.split)) for task in answered)
    if not stage.trains:
        return Work("", 0.0, answers)
    given, rows = stage.arguments(learner.spec), sum(len(task.train) for task in stage.tasks)
    split = ("per_device_train_batch_size", "gradient_accumulation_steps")
    batch = int(math.prod(numeric_argument(given, name) for name in split)) * world.size()
    steps = numeric_argument(given, "max_steps", -1)
    epochs = numeric_argument(given, "num_train_epochs", 0) or epochs_by_size(rows, batch)
    return Work(f"learning {stage.name}", steps * batch if steps > 0 else epochs * rows, answers)


def _scores(names: Sequence[str], stage: Committed) -> Mapping[str, float]:
    return {name: score for name, score in zip(names, stage.facts.row, strict=False) if score is not None}


@torch.no_grad()
def _guess(learner: SequentialLearner, works: Sequence[Work], tasks: Sequence[Task]) -> float | None:
    """Return seconds that works may take, by the time in which the base model reads a few rows and answers them.

    A guess and no more: rows of other tasks are longer or shorter, batches larger, and methods add to a step.
    """
    base, settings = learner.base, learner.spec.evaluation
    task = next((task for task in tasks if len(task.train) and len(task.test)), None)
    if task is None:
        return None
    rows = list(task.train[:SOME])
    with evaluating(base.model), seeded(0):
        began = time.perf_counter()
        base.family.try_out(base.model, task, rows)
        reading = (time.perf_counter() - began) / len(rows)
        answering = reading
        if base.family.head is None:
            began, few = time.perf_counter(), rows[: SOME // 2]
            base.family.predict(base.model, task, few, settings.scoring)
            answering = (time.perf_counter() - began) / len(few)
    base.family.truncated = 0
    return sum(FORWARDS * reading * work.rows + answering * work.answers for work in works)


def matrix_picture(names: Sequence[str], rows: Sequence[Mapping[str, float]]) -> bytes | None:
    """Draw scores after each stage as a heat map, as PNG; None where the packages of everlora[report] are missing."""
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError:
        return None
    matrix = ScoreMatrix.empty(list(names), [0] * len(names))
    for number, row in enumerate(rows[: len(names)]):
        matrix = matrix.with_row(number, [row.get(name) for name in names])
    drawn: bytes = vl_convert.vegalite_to_png(matrix.plot().to_dict(), scale=2)
    return drawn
