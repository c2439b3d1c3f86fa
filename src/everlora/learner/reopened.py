"""Brings a recorded run back with its model and its rows, for what nobody measured while it went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from everlora.analysis.runs import Run
from everlora.core.errors import ConfigError, DataError
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRankUpdates
from everlora.data.task import Task
from everlora.learner import experiment
from everlora.learner.opened import load_learner, restore
from everlora.learner.sequential import SequentialLearner
from everlora.settings.spec import RunSpec


@dataclass(frozen=True)
class LearnedStage:
    """Holds one task of a run that was brought back.

    Attributes:
        task: with its rows.
        added: the update that the task added.
        before, after: the history without it and with it.
    """

    task: Task
    added: LowRankUpdates
    before: UpdateHistory
    after: UpdateHistory


@dataclass(frozen=True)
class Reopened:
    """Holds a run that was brought back; its folder is not written to.

    Attributes:
        method: by which it was made, with its options where some were given.
        learner: with the base model.
        stages: what it has learned, in order.
    """

    method: str
    learner: SequentialLearner
    stages: Sequence[LearnedStage]

    def model_with(self, history: UpdateHistory) -> nn.Module:
        """Return the base model with a history of updates in it, ready to answer."""
        backend = self.learner.backend
        backend.set_past(UpdateHistory())  # another history of the same length would be taken for this one
        backend.set_past(history, self.learner.merge_when("infer"))
        return self.learner.base.model.eval()


def reopen(path: Path, *, answers: bool = False) -> Reopened:
    """Load a run's base model and its benchmark's rows, and read its updates.

    Args:
        path: folder of a run that followed a benchmark.
        answers: whether answers of earlier stages are wanted, for which a head must be the same at every stage.

    Raises:
        ConfigError: a run whose rows or stages cannot be brought back.
        DataError: its rows are others today.
    """
    run = Run.read(path)
    if not isinstance(run.settings, RunSpec):
        raise ConfigError(f"{path} was taught task by task, and its rows are not at hand; give a run of a benchmark")
    if not run.method.adapter.loads_with_peft or run.method.consolidator.rule == "keep":
        raise ConfigError(f"{path} learned no low-rank updates of one model, which this is measured on")
    learner = load_learner(path, {"feature_cache": "off"}, read_only=True)
    family = learner.base.family
    if answers and family.head is not None and not family.fixed:
        raise ConfigError(f"{path} trains a head, which is another after every task; give a run with --head names")
    tasks = {task.name: task for task in experiment.stream_for(run.settings, learner.base)}
    known = [_same(tasks, name, digest, path) for stage in run.stages for name, digest in stage.facts.data.items()]
    restore(learner, known)
    learner.backend.detach()
    family.frozen = None  # what is measured looks at every layer
    stages = [
        LearnedStage(task, added, before, after)
        for task, (_, added, before, after) in zip(known, run.updates(), strict=True)
    ]
    return Reopened(run.settings.method, learner, stages)


def _same(tasks: dict[str, Task], name: str, digest: str, path: Path) -> Task:
    """Return a task of today, which must be the one that was learned."""
    if name not in tasks or tasks[name].digest() != digest:
        raise DataError(f"the rows of {name!r} are not those that {path} learned; use the everlora and data of then")
    return tasks[name]
