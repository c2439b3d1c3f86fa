"""Plans what a learner has to do with tasks: rows to train on and rows to answer, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from everlora.data.task import Task
from everlora.runtime import world
from everlora.runtime.time_left import Work
from everlora.settings.training import epochs_by_size, numeric_argument
from everlora.training.stages import Stage, tasks_to_evaluate

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner


def planned_work(learner: SequentialLearner, tasks: Sequence[Task], done: int) -> list[Work]:
    """Return the work of every stage but the first ``done``."""
    return [_of_stage(learner, stage, tasks) for stage in learner.plan[done:]]


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
