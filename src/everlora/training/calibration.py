"""Calibrates the prediction of a budget: what earlier tasks were predicted to lose against what rows of them show.

A curvature predicts what the next update costs the earlier tasks, and is known to predict too little of it. Whether it
does can only be seen on rows of the earlier tasks. So this is for those who may store some: ``budget(probes=32)``
keeps 32 training rows of each task, which are looked at and never trained again. By default nothing is stored.

When task t ends, the losses of the rows of all tasks k < t are compared with what they were when task t - 1 ended:

    real_t = Σ over k < t of (mean loss of k after t - mean loss of k after t - 1),   ratio = Σ real_t / Σ predicted_t

and the prediction for the tasks that follow is multiplied by the ratio, held between 1/30 and 30. It is a ratio of
sums over all tasks so far, since a single rise may well be negative. What rows show differs from row to row by more
than a small budget allows: as long as the real sum is within two standard errors of the predicted one, the ratio is 1.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from everlora.archive.commits import ProbedRise
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
ERRORS = 2.0
"""Standard errors by which real and predicted rise must differ, or the rows do not tell them apart."""


@dataclass
class Calibration:
    """Holds the rows that are looked at, and sums of what was predicted and what was real.

    >>> seen = Calibration(probes=2)
    >>> seen.append([], ProbedRise(losses={"one": [0.1, 0.1]}), None)
    >>> seen.append([], ProbedRise(losses={"one": [0.4, 0.4]}, real_rise=0.3), predicted=0.1)
    >>> round(seen.ratio, 6)
    3.0

    Attributes:
        probes: rows of each task; 0 where no budget asks for them.
        rows: by task, those that are stored.
        losses: of each task's rows when the latest stage ended, in nats.
        predicted, real, variance: sums over the stages so far, the last of the variance of what is real.
    """

    probes: int
    rows: list[Task] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    predicted: float = 0.0
    real: float = 0.0
    variance: float = 0.0

    @classmethod
    def of(cls, method: Method) -> Calibration:
        """Make the calibration of a method's budgets, with as many rows as one of them asks for."""
        strengths = [part.strength for part in method.penalties]
        return cls(max((one.probes for one in strengths if isinstance(one, ProbedBudget)), default=0))

    @property
    def ratio(self) -> float:
        """Return by what predictions are to be multiplied; 1 as long as rows do not show them to be off."""
        alike = abs(self.real - self.predicted) <= ERRORS * math.sqrt(self.variance)
        if self.predicted <= 0 or alike:
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
        losses = {
            task.name: [mean_loss(model, family, [(row, task)]) for row in task.train] for task in [*self.rows, *fresh]
        }
        if not self.losses:
            return ProbedRise(losses=losses, calibration=self.ratio)
        rises = [
            [now - then for now, then in zip(losses[name], before, strict=True)]
            for name, before in self.losses.items()
        ]
        return ProbedRise(
            losses=losses,
            real_rise=sum(map(statistics.fmean, rises)),
            error=math.sqrt(sum(statistics.variance(one) / len(one) for one in rises if len(one) > 1)),
            calibration=self.ratio,
        )

    def append(self, fresh: list[Task], seen: ProbedRise | None, predicted: float | None) -> None:
        """Take note of a stage that has ended."""
        if seen is None:
            return
        self.rows, self.losses = [*self.rows, *fresh], seen.losses
        if seen.real_rise is not None and predicted is not None:
            self.predicted, self.real = self.predicted + predicted, self.real + seen.real_rise
            self.variance += seen.error**2


@torch.no_grad()
def mean_loss(model: nn.Module, family: Family, rows: Rows) -> float:
    """Return the mean loss of rows, each over its whole answer, in nats per row."""
    total = 0.0
    with evaluating(model), own_labels(family):
        for k in range(0, len(rows), AT_ONCE):
            batch = to_batch(model, family, rows[k : k + AT_ONCE])
            total += float(token_mean(*family.logits(model, batch), 1))
    return total / len(rows)


@contextmanager
def own_labels(family: Family) -> Iterator[None]:
    """Let a head take the loss of a row over the labels of its own task, of which another may be learned now."""
    if not isinstance(family, Classifier):
        yield
        return
    before, family.by_task = family.by_task, True
    try:
        yield
    finally:
        family.by_task = before
