"""Forecasts, before the first step of a task, what earlier tasks will lose by it; no row of theirs is needed.

A few rows of the new task, at most `SHARE` of those that its training will pass through the model, give the slope and
the curvature of its loss. The update is taken to be the descent along this slope through the new pair, as large as
this learner's updates have been so far; what it will cost is told by `everlora.learner.forecast_risk`.
"""

from __future__ import annotations

import random
from statistics import fmean
from typing import TYPE_CHECKING

from torch import nn

from everlora.archive.forecast import NAMED, Forecast
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.learner.forecast_risk import earlier_tasks, norm, risks_of, sized
from everlora.models.families import Classifier
from everlora.runtime.seeds import seed_for
from everlora.settings.training import numeric_argument
from everlora.training import forecast_summary
from everlora.training.forecast_summary import TaskSummary, descent
from everlora.training.forecast_sums import Look, fits, sums_over
from everlora.training.stages import Stage
from everlora.training.task_trainer import TaskTrainer

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner

SHARE = 0.02
"""Of the row passes of a task's training that its forecast may take."""
MOST = 64
"""Rows that a forecast looks at however long the training is."""


def look(learner: SequentialLearner, stage: Stage, model: nn.Module) -> Look | None:
    """Look at a few rows of a stage before its first step; None where nobody asked, or too few are allowed."""
    if not learner.teaching.forecast or none_for(learner):
        return None
    if not (count := min(int(SHARE * row_passes(learner, stage)), MOST)):
        return None
    rows = [(row, task) for task in stage.tasks for row in task.train]
    seed = seed_for(learner.spec.seed, stage.seeded, "forecast")
    chosen = random.Random(seed).sample(rows, min(count, len(rows)))
    return sums_over(model, learner.base.family, learner.backend.base_layers(), chosen)


def forecast(learner: SequentialLearner, stage: Stage, seen: Look | None) -> Forecast | None:
    """Say what earlier tasks will lose by a stage, whose adapter is on the model and has not been trained yet.

    None for a first task, and where nobody asked for a forecast.

    Args:
        learner: that is about to learn it.
        stage: the new task.
        seen: what rows of it have shown.
    """
    if not learner.teaching.forecast or stage.number == 1:
        return None
    made = _forecast(learner, stage, seen)
    for line in lines(made):
        learner.progress.info(f"{stage.name}: {line}")
    return made


def _forecast(learner: SequentialLearner, stage: Stage, seen: Look | None) -> Forecast:
    passes = row_passes(learner, stage)
    if reason := none_for(learner):
        return Forecast(reason=reason)
    if seen is None:
        return Forecast(reason=f"no forecast: {SHARE:.0%} of the {passes} rows that training passes is less than one")
    known = earlier_tasks(learner)
    unknown = [one.facts.name for one in learner.folder.stages() if one.facts.within]
    unknown += [one.stage.facts.name for one in known if not one.summarised]
    if not any(one.summarised for one in known):
        return Forecast(reason="no forecast: no earlier task left a summary", unknown=unknown)
    live = {name: site for name, site in learner.backend.trainable().items() if isinstance(site, LowRank)}
    size = fmean(norm(one.moved) for one in known)
    moved = sized({name: descent(live[name], one.gradient) for name, one in seen.sums.items()}, size)
    risks = sorted(risks_of(known, moved, seen), key=lambda one: -one.nats)
    return Forecast(
        risks=risks[:NAMED],
        lesser={one.task: one.nats for one in risks[NAMED:]},
        unknown=unknown,
        rows=seen.rows,
        share=seen.rows / passes,
        size=size,
    )


def summarise(learner: SequentialLearner, stage: Stage, model: nn.Module, seen: Look | None) -> TaskSummary | None:
    """Return the summary of a stage that has just been trained, for forecasts of later ones; None where none is."""
    if seen is None:
        return None
    rows = [(row, task) for task in stage.tasks for row in task.train]
    seed = seed_for(learner.spec.seed, stage.seeded, "summary")
    layers = learner.backend.base_layers()
    return forecast_summary.summarise(model, learner.base.family, layers, rows, seen, seed)


def none_for(learner: SequentialLearner) -> str | None:
    """Say in a line why there is no forecast for a learner; None where there is one."""
    method, family = learner.method, learner.base.family
    if method.consolidator.rule == "keep":
        return f"no forecast: {method.name!r} gives each task an adapter of its own, so that none loses by another"
    if not method.adapter.low_rank or method.consolidator.rule not in ("sum", "continue"):
        return f"no forecast for this form: {method.name!r} adds no low-rank updates to one another"
    if method.merge is not None:
        return f"no forecast for this form: {method.name!r} merges its updates otherwise than by their sum"
    if isinstance(family, Classifier) and not (family.fixed or family.by_task):
        return "no forecast for this form: new rows of the head draw answers of earlier tasks to themselves"
    if not fits(site.shape for site in learner.backend.trainable().values() if isinstance(site, LowRank)):
        return "no forecast for this form: its adapted matrices are too large to be summed"
    return None


def row_passes(learner: SequentialLearner, stage: Stage) -> int:
    """Return how many rows of its own a stage's training will pass through the model; rehearsed ones come on top."""
    trainer = TaskTrainer(
        learner.base, learner.method, learner.spec, learner.backend, stage, UpdateHistory(), None, {}
    )
    rows = sum(len(task.train) for task in stage.tasks)
    if (steps := int(numeric_argument(trainer.arguments, "max_steps", -1))) > 0:
        return steps * min(trainer.batch, rows)
    return int(rows * numeric_argument(trainer.arguments, "num_train_epochs", 3.0))


def lines(made: Forecast) -> list[str]:
    """Say a forecast in lines, for whoever is about to wait for the training."""
    if made.reason is not None:
        return [made.reason]
    found = [f"{one.task} is expected to lose {one.text} points, {one.nats:.3f} nats" for one in made.risks]
    if made.lesser:
        found.append(f"the other {len(made.lesser)} are expected to lose at most {max(made.lesser.values()):.3f} nats")
    return found + [f"{name}: not forecast, it has no summary" for name in made.unknown]
