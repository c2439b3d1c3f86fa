"""Lets a model answer tasks, and has seen whether its answers depend on the rows that are answered beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from everlora.core.spec import EvalSpec
from everlora.core.task import Task
from everlora.engine.environment import fingerprint
from everlora.engine.evaluator import Scored, answers, evaluate
from everlora.engine.models import Loaded
from everlora.engine.progress import Progress

WITNESSES = 4
"""Rows that are answered a second time, alone."""


class Examiner:
    """Asks one base model, whatever is mounted on it.

    Attributes:
        invariant: whether a few rows were answered alone as they were in their batch; None before it was seen.
    """

    def __init__(self, base: Loaded, how: EvalSpec) -> None:
        self.base, self.how = base, how
        self.invariant: bool | None = None

    def ask(self, model: nn.Module, tasks: Sequence[Task], progress: Progress) -> list[Scored]:
        """Let a model answer the test (or dev) rows of several tasks, one after another."""
        scored = []
        for task in tasks:
            progress.phase(f"answering {task.name}", len(getattr(task, self.how.split)))
            scored.append(
                evaluate(
                    model,
                    self.base.family,
                    task,
                    scoring=self.how.scoring,
                    batch_size=self.how.batch_size,
                    split=self.how.split,
                    progress=progress.advance,
                )
            )
            progress.done()
            if self.invariant is None:  # once is enough
                self.invariant = self._alone(model, task, scored[-1])
        return scored

    def fingerprint(self) -> dict[str, Any]:
        """What travels with the scores of this examiner, see `everlora.engine.environment.fingerprint`."""
        return fingerprint(self.base, self.how.scoring, self.invariant)

    def _alone(self, model: nn.Module, task: Task, scored: Scored) -> bool:
        """Whether rows from the shortest to the longest are answered one by one as they were together."""
        rows = getattr(task, self.how.split)
        order = sorted(range(len(rows)), key=lambda k: (self.base.family.length(rows[k], task), k))
        few = sorted({order[k * (len(order) - 1) // (WITNESSES - 1)] for k in range(WITNESSES)})
        again = answers(model, self.base.family, task, [rows[k] for k in few], self.how.scoring, batch_size=1)
        return again == [scored.predictions[k] for k in few]
