"""Holds what a new task may cost the earlier ones: the update is taken as far as rows of these tasks allow.

Let ΔW be the update that a task has learned, and d(c) the mean drop of the earlier tasks' scores, in points, on the
test rows that are at hand, when c ΔW is added to the model. With a budget b the task is committed at the largest c
in (0, 1] that a bisection finds with d(c) + e(c) ≤ b, where e is the standard error of d over the rows. At c = 0 the
model is what it was, and d(0) = 0: some c always fits, though it may be too small to be worth a task.

Where no test row of an earlier task is at hand, the forecast stands in: d(c) is then what c ΔW is expected to cost the
tasks that left a summary (`everlora.learner.forecast_risk`), and e is 0. That holds down what is expected, and says
less than rows would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from everlora.archive.commits import SpentBudget
from everlora.archive.forecast import Forecast
from everlora.core.errors import ConfigError, TrainingError
from everlora.core.updates import LowRank, Updates, Weights
from everlora.data.task import Task
from everlora.evaluation.scoring import TaskScore, score_task
from everlora.learner.forecast_risk import earlier_tasks, expected_drop, risks_of
from everlora.models.families import Classifier
from everlora.training.forecast_sums import Look
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


def check_budget(learner: SequentialLearner, stage: Stage, expected: Forecast | None) -> None:
    """Refuse, before a task is trained, a budget that nothing could be held against.

    Args:
        learner: that is about to learn the task.
        stage: the task.
        expected: what earlier tasks are expected to lose by it, if that was asked for.

    Raises:
        ConfigError: the method's updates cannot be shortened, a head is shared by all tasks, or there are neither
            rows of earlier tasks nor a forecast.
    """
    budget = learner.teaching.may_lose
    if budget is None or stage.number == 1:
        return
    method, family = learner.method, learner.base.family
    if method.consolidator.rule != "sum" or (method.merge is not None and method.merge.infer == "merged"):
        raise ConfigError(f"{method.name!r} does not sum its updates, so none can be shortened; leave --may-lose out")
    if isinstance(family, Classifier) and not (family.fixed or family.by_task):
        # New rows of a head draw answers to themselves whatever the update is, and nothing but it is shortened.
        raise ConfigError(
            "a head that answers with the labels of all tasks is changed by each of them; a budget is for models that "
            "write, or score labels (--eval-scoring labels); leave --may-lose out"
        )
    if _tasks_with_rows(learner, stage) or (expected is not None and expected.risks):
        return
    why = expected.reason if expected is not None else "--no-forecast leaves out what would stand in for them"
    raise ConfigError(
        f"no test rows of earlier tasks are at hand to hold a budget against, and {why}; teach with --keep-probe, or "
        f"leave --may-lose out"
    )


def _tasks_with_rows(learner: SequentialLearner, stage: Stage) -> list[Task]:
    """Return the earlier tasks whose test rows are at hand."""
    return [task for one in learner.plan[: stage.number - 1] for task in one.tasks if len(task.test)]


Drop = Callable[[float], tuple[float, float]]
"""What a share c of an update costs: the mean drop of the earlier tasks' scores in points, and its standard error."""


def _drop_on_rows(learner: SequentialLearner, model: nn.Module, update: Updates, earlier: Sequence[Task]) -> Drop:
    """Measure what shares of an update cost earlier tasks, on the rows of them that are at hand."""

    def scores(share: float) -> list[TaskScore]:
        learner.backend.set_values(scaled(update, share))
        return [_score(learner, model, task) for task in earlier]

    before = scores(0.0)
    return lambda share: drop(before, scores(share))


def _drop_by_forecast(learner: SequentialLearner, update: Updates, seen: Look) -> Drop:
    """Forecast what shares of an update cost the earlier tasks that left a summary."""
    moved = {name: one for name, one in update.items() if isinstance(one, LowRank)}
    risks = risks_of(earlier_tasks(learner), moved, seen)
    return lambda share: (expected_drop(risks, share), 0.0)


def within_budget(
    learner: SequentialLearner, stage: Stage, model: nn.Module, update: Updates, seen: Look | None
) -> tuple[Updates, SpentBudget | None]:
    """Return the update as far as the teacher's budget allows, on the model, and what it costs.

    Args:
        learner: that has learned the task.
        stage: the task.
        model: with the adapter on it.
        update: what was learned.
        seen: what rows of the task showed before its first step, for a forecast.

    Raises:
        ConfigError: its form cannot be shortened.
        TrainingError: no share of the update that is worth having is within the budget, and it is not to be taken
            all the same.
    """
    budget = learner.teaching.may_lose
    if budget is None or stage.number == 1:
        return update, None
    earlier = _tasks_with_rows(learner, stage)
    if earlier:
        measured, against = _drop_on_rows(learner, model, update, earlier), "rows of earlier tasks"
    else:
        assert seen is not None  # or `check_budget` had refused
        measured, against = _drop_by_forecast(learner, update, seen), "the forecast, since no rows are at hand"
    learner.progress.info(f"{stage.name}: a budget of {budget:g} points is held against {against}")
    share, spent = _largest_share(measured, budget)
    lost, error = spent[share]
    if forced := share < LEAST:
        lost, error = spent[1.0]
        if not learner.teaching.force:
            found = f"{lost:.1f} ± {error:.1f} points" if earlier else f"{lost:.1f} points by the forecast"
            raise TrainingError(
                f"task {stage.name!r} costs the earlier ones {found}, and no part of it stays within {budget:g}; it "
                f"is not committed. Allow more (--may-lose), keep more rows to judge by, or take it all the same "
                f"(--force)"
            )
        share = 1.0
    taken = scaled(update, share)
    learner.backend.set_values(taken)
    cost = {"lost": lost, "error": error, "rows": sum(len(task.test) for task in earlier)}
    return taken, SpentBudget(may_lose=budget, share=share, **cost, forced=forced, forecast=not earlier)


def _largest_share(measured: Drop, budget: float) -> tuple[float, dict[float, tuple[float, float]]]:
    """Return the largest share of an update that stays within a budget, 0 for none, and what those tried cost."""
    spent = {0.0: (0.0, 0.0), 1.0: measured(1.0)}
    if sum(spent[1.0]) <= budget:
        return 1.0, spent
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        spent[middle] = measured(middle)
        low, high = (middle, high) if sum(spent[middle]) <= budget else (low, middle)
    return low, spent


def _score(learner: SequentialLearner, model: nn.Module, task: Task) -> TaskScore:
    how = learner.spec.evaluation
    return score_task(model, learner.base.family, task, scoring=how.scoring, batch_size=how.batch_size)
