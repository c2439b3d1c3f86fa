"""Calibrates the prediction of a budget: what earlier tasks were predicted to lose against what rows of them show.

A curvature predicts what the next update costs the earlier tasks, and is known to predict too little of it. Whether it
does can only be seen on rows of the earlier tasks. So this is for those who may store some: ``budget(probes=8)`` keeps
8 training rows of each task, which are looked at and never trained again. By default nothing is stored.

When task t ends, the losses of the rows of all tasks k < t are compared with what they were when task t - 1 ended:

    real_t = sum over k < t of (loss_k after t - loss_k after t-1),   ratio = sum of real_t / sum of predicted_t

and the prediction for the tasks that follow is multiplied by the ratio, held between 1/30 and 30. It is a ratio of
sums over all tasks so far, since a single rise may well be negative. Few rows make a rough ratio: it is as uncertain
as the mean loss of so many rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from everlora.archive.records import ProbedRise
from everlora.core.method import Method
from everlora.core.roles import ProbedBudget
from everlora.data.task import Task
from everlora.models.families import Classifier, Family
from everlora.models.families.heads import evaluating
from everlora.runtime.seeds import seed_for
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.stages import Stage
from everlora.training.trainer import token_mean

FILE = "probes.jsonl"
LOWEST, HIGHEST = 1 / 30, 30.0
"""Between which the ratio is held, so that one odd measurement neither frees nor ends learning."""


@dataclass
class Calibration:
    """Holds the rows that are looked at, and sums of what was predicted and what was real.

    >>> seen = Calibration(probes=8)
    >>> seen.append([], ProbedRise(losses={"one": 0.1}), None)
    >>> seen.append([], ProbedRise(losses={"one": 0.4, "two": 0.1}, real_rise=0.3), predicted=0.1)
    >>> round(seen.ratio, 6)
    3.0

    Attributes:
        probes: rows of each task; 0 where no budget asks for them.
        rows: by task, those that are stored.
        losses: mean loss of each task's rows when the latest stage ended, in nats per row.
        predicted, real: sums over the stages so far.
    """

    probes: int
    rows: list[Task] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    predicted: float = 0.0
    real: float = 0.0

    @classmethod
    def of(cls, method: Method) -> Calibration:
        """Make the calibration of a method's budgets, with as many rows as one of them asks for."""
        strengths = [part.strength for part in method.penalties]
        return cls(max((one.probes for one in strengths if isinstance(one, ProbedBudget)), default=0))

    @property
    def ratio(self) -> float:
        """Return by what predictions are to be multiplied; 1 before anything was seen."""
        if self.predicted <= 0:
            return 1.0
        return min(max(self.real / self.predicted, LOWEST), HIGHEST)

    def draw(self, stage: Stage, seed: int) -> list[Task]:
        """Draw the rows of a stage's tasks that are stored; none without probes."""
        found = []
        for task in stage.tasks if self.probes else ():
            number = random.Random(seed_for(seed, stage.seeded, task.name, "probes"))
            chosen = sorted(number.sample(range(len(task.train)), min(self.probes, len(task.train))))
            rows = [task.train[k] for k in chosen]
            found.append(replace(task, train=rows, test=rows[:1], dev=()))
        return found

    def measure(self, model: nn.Module, family: Family, fresh: list[Task]) -> ProbedRise | None:
        """Look at the stored rows, and at those of the stage that has just ended; None without probes."""
        if not self.probes:
            return None
        each = {task.name: [(row, task) for row in task.train] for task in [*self.rows, *fresh]}
        losses = {name: mean_loss(model, family, rows) for name, rows in each.items()}
        real = sum(losses[name] - before for name, before in self.losses.items()) if self.losses else None
        return ProbedRise(losses=losses, real_rise=real, calibration=self.ratio)

    def append(self, fresh: list[Task], seen: ProbedRise | None, predicted: float | None) -> None:
        """Take note of a stage that has ended."""
        if seen is None:
            return
        self.rows, self.losses = [*self.rows, *fresh], seen.losses
        if seen.real_rise is not None and predicted is not None:
            self.predicted, self.real = self.predicted + predicted, self.real + seen.real_rise


@torch.no_grad()
def mean_loss(model: nn.Module, family: Family, rows: Rows) -> float:
    """Return the mean loss of rows, each over its whole answer, in nats per row."""
    total = 0.0
    with evaluating(model), _own_labels(family):
        for k in range(0, len(rows), AT_ONCE):
            batch = to_batch(model, family, rows[k : k + AT_ONCE])
            total += float(token_mean(*family.logits(model, batch), 1))
    return total / len(rows)


@contextmanager
def _own_labels(family: Family) -> Iterator[None]:
    """Let a head take the loss of a row over the labels of its own task, of which another may be learned now."""
    if not isinstance(family, Classifier):
        yield
        return
    before, family.by_task = family.by_task, True
    try:
        yield
    finally:
        family.by_task = before
