"""Holds what a new task may cost the earlier ones: the update is taken as far as rows of these tasks allow.

Let ΔW be the update that a task has learned, and d(c) the mean drop of the earlier tasks' scores, in points, on the
test rows that are at hand, when c ΔW is added to the model. With a budget b the task is committed at the largest c
in (0, 1] that a bisection finds with d(c) + e(c) ≤ b, where e is the standard error of d over the rows. At c = 0 the
model is what it was, and d(0) = 0: some c always fits, though it may be too small to be worth a task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from everlora.archive.commits import SpentBudget
from everlora.core.errors import ConfigError, TrainingError
from everlora.core.updates import LowRank, Updates, Weights
from everlora.data.task import Task
from everlora.evaluation.scoring import TaskScore, score_task
from everlora.models.families import Classifier
from everlora.training.stages import Stage

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner

HALVINGS = 5
"""Of the interval in which c is sought: it is found to 1/32."""
LEAST = 1 / 32
"""Below this share of an update nothing is learned that is worth a task."""


def scaled(updates: Updates, share: float) -> Updates:
    """Return updates c ΔW of pairs A, B.

    Raises:
        ConfigError: they are of another form.
    """
    found: dict[str, LowRank | Weights] = {}
    for name, update in updates.items():
        if not isinstance(update, LowRank):
            raise ConfigError("a budget of forgetting is for updates of low rank; leave --may-lose out")
        if update.sigma is None:
            found[name] = replace(update, B=update.B * share)
        else:
            found[name] = replace(update, sigma=update.sigma * share)
    return found


def drop(before: Sequence[TaskScore], after: Sequence[TaskScore]) -> tuple[float, float]:
    """Return the mean drop of tasks' scores in points, and its standard error over their rows.

    >>> from everlora.evaluation.scoring import TaskScore
    >>> def score(*each: float) -> TaskScore:
    ...     blank = ("",) * len(each)
    ...     marks = {"correct": tuple(e > 0 for e in each), "each": each, "score": sum(each) / len(each)}
    ...     return TaskScore(task="a", targets=blank, predictions=blank, **marks)
    >>> drop([score(100.0, 100.0)], [score(100.0, 0.0)])
    (50.0, 50.0)
    """
    lost, variance = 0.0, 0.0
    for old, new in zip(before, after, strict=True):
        lost += old.score - new.score
        each = [a - b for a, b in zip(old.each, new.each, strict=True)]
        mean = sum(each) / len(each)
        if len(each) > 1:
            variance += sum((one - mean) ** 2 for one in each) / (len(each) - 1) / len(each)
    return lost / len(before), math.sqrt(variance) / len(before)


def _rows_to_judge_by(learner: SequentialLearner, stage: Stage) -> list[Task]:
    """Return the earlier tasks whose test rows are at hand.

    Raises:
        ConfigError: there are none, or nothing that could be shortened stands for what a task has learned.
    """
    method = learner.method
    if method.consolidator.rule != "sum" or (method.merge is not None and method.merge.infer == "merged"):
        raise ConfigError(f"{method.name!r} does not sum its updates, so none can be shortened; leave --may-lose out")
    family = learner.base.family
    if isinstance(family, Classifier) and not (family.fixed or family.by_task):
        # New rows of a head draw answers to themselves whatever the update is, and nothing but it is shortened.
        raise ConfigError(
            "a head that answers with the labels of all tasks is changed by each of them; a budget is for models that "
            "write, or score labels (--eval-scoring labels); leave --may-lose out"
        )
    earlier = [task for one in learner.plan[: stage.number - 1] for task in one.tasks if len(task.test)]
    if not earlier:
        raise ConfigError(
            "no test rows of earlier tasks are at hand to hold a budget against; teach with --keep-probe, or leave "
            "--may-lose out"
        )
    return earlier


def within_budget(
    learner: SequentialLearner, stage: Stage, model: nn.Module, update: Updates
) -> tuple[Updates, SpentBudget | None]:
    """Return the update as far as the teacher's budget allows, on the model, and what it costs.

    Raises:
        ConfigError: the method's updates cannot be shortened, a head is shared by all tasks, or no row of an earlier
            task is at hand.
        TrainingError: no share of the update that is worth having is within the budget, and it is not to be taken
            all the same.
    """
    teaching = learner.teaching
    if teaching.may_lose is None or stage.number == 1:
        return update, None
    earlier = _rows_to_judge_by(learner, stage)

    def scores(share: float) -> list[TaskScore]:
        learner.backend.set_values(scaled(update, share))
        return [_score(learner, model, task) for task in earlier]

    before, spent = scores(0.0), dict[float, tuple[float, float]]()

    def fits(share: float) -> bool:
        spent[share] = drop(before, scores(share))
        return sum(spent[share]) <= float(teaching.may_lose or 0.0)

    learner.progress.info(f"{stage.name}: held against a budget of {teaching.may_lose:g} points")
    share = 1.0
    if not fits(1.0):
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        share = low
    forced = share < LEAST
    if forced and not teaching.force:
        lost, error = spent[1.0]
        raise TrainingError(
            f"task {stage.name!r} costs the earlier ones {lost:.1f} ± {error:.1f} points, and no part of it stays "
            f"within {teaching.may_lose:g}; it is not committed. Allow more (--may-lose), keep more rows to judge by, "
            f"or take it all the same (--force)"
        )
    share = 1.0 if forced else share
    lost, error = spent[share]
    taken = scaled(update, share)
    learner.backend.set_values(taken)
    rows = sum(len(task.test) for task in earlier)
    return taken, SpentBudget(
        may_lose=teaching.may_lose, share=share, lost=lost, error=error, rows=rows, forced=forced
    )


def _score(learner: SequentialLearner, model: nn.Module, task: Task) -> TaskScore:
    how = learner.spec.evaluation
    return score_task(model, learner.base.family, task, scoring=how.scoring, batch_size=how.batch_size)
