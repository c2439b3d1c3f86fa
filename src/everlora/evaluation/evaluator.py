"""Lets a model answer tasks, and has seen whether its answers depend on the rows that are answered beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from everlora.archive.folder import Committed, RunFolder, write_rows
from everlora.data.task import Task
from everlora.evaluation.general import general_ability, writes_text
from everlora.evaluation.scoring import TaskScore, answer_rows, score_task
from everlora.models.environment import fingerprint
from everlora.models.loading import Loaded
from everlora.runtime import world
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec

WITNESSES = 4
"""Rows that are answered a second time, alone."""


class Evaluator:
    """Asks one base model, whatever is mounted on it.

    Attributes:
        invariant: whether a few rows were answered alone as they were in their batch; None before it was seen.
    """

    def __init__(self, base: Loaded, how: EvalSpec) -> None:
        self.base, self.how = base, how
        self.invariant: bool | None = None
        self._began = False
        self.ability = general_ability(base, how)
        self.ahead = how.schedule == "forward" and base.family.head is None
        """Whether tasks are answered before they are learned, which a head without rows for their labels cannot."""
        self.general: dict[str, float] | None = None
        """General ability of the model that was asked last."""

    def evaluate(self, model: nn.Module, tasks: Sequence[Task], progress: Progress) -> list[TaskScore]:
        """Let a model answer the test (or dev) rows of several tasks, one after another."""
        scored = []
        for task in tasks:
            progress.phase(f"answering {task.name}", len(getattr(task, self.how.split)))
            scored.append(
                score_task(
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
        if self.ability is not None:
            progress.phase("measuring general ability", 1)
            self.general = self.ability(model)
            progress.done()
        return scored

    def facts(self) -> dict[str, Any]:
        """What travels with the scores: `everlora.models.environment.fingerprint`, and general ability if asked."""
        general = {} if self.general is None else {"general": self.general}
        return {"fingerprint": fingerprint(self.base, self.how.scoring, self.invariant), **general}

    def before(self, folder: RunFolder, tasks: Sequence[Task], progress: Progress) -> None:
        """Measure the base model before anything is done to it, and commit that; but for what the folder has of it."""
        if self._began:
            return
        self._began = True
        if self.how.general and not writes_text(self.base):
            progress.warn(f"general ability is not measured: models of family {self.base.family.name!r} write no text")
        there = folder.before()
        data = {task.name: task.digest() for task in tasks} if self.ahead else {}
        known = there.facts if there else {"base": {}, "data": {}}
        old = {name: score for name, score in known["base"].items() if known["data"][name] == data.get(name)}
        due = [task for task in tasks if task.name in data and task.name not in old]
        if not due and (self.ability is None or "general" in known):
            return
        scored = self.evaluate(self.base.model, due, progress)
        if world.is_main():
            base = {**old, **{one.task: one.score for one in scored}}
            rows = [json.loads(line) for line in _lines(there) if json.loads(line)["task"] in old]
            with folder.commit_before({"base": base, "data": data, **self.facts()}) as path:
                write_rows(path / "predictions.jsonl", [*rows, *(row for one in scored for row in one.rows())])
        progress.info("before: " + self.shown(scored))

    def shown(self, scored: Sequence[TaskScore]) -> str:
        """Scores and general ability in a line."""
        found = {one.task: one.score for one in scored} | (self.general or {})
        return "  ".join(f"{name} {value:.1f}" for name, value in found.items())

    def _alone(self, model: nn.Module, task: Task, scored: TaskScore) -> bool:
        """Whether rows from the shortest to the longest are answered one by one as they were together."""
        rows = getattr(task, self.how.split)
        order = sorted(range(len(rows)), key=lambda k: (self.base.family.length(rows[k], task), k))
        few = sorted({order[k * (len(order) - 1) // (WITNESSES - 1)] for k in range(WITNESSES)})
        again = answer_rows(model, self.base.family, task, [rows[k] for k in few], self.how.scoring, batch_size=1)
        return again == [scored.predictions[k] for k in few]


def _lines(there: Committed | None) -> list[str]:
    """The answers that a committed folder has."""
    return (there.path / "predictions.jsonl").read_text(encoding="utf-8").splitlines() if there else []
