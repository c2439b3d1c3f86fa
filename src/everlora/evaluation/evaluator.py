"""Lets a model answer the rows of tasks, and checks once whether its answers depend on the rows of the same batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from everlora.archive.answers_so_far import AnswersSoFar
from everlora.archive.commits import BaselineFacts
from everlora.archive.committed import PREDICTIONS
from everlora.archive.folder import RunFolder
from everlora.archive.records import AnswerRow, Fingerprint
from everlora.archive.schema import read_rows, write_rows
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
    """Scores one base model, whatever adapter is on it.

    Attributes:
        base: the model, whose family knows how rows are answered.
        settings: when and how answers are scored.
        scores_next_task: whether tasks are answered before they are learned, which a classification head cannot: it
            has no rows for their labels yet.
        batch_invariant: whether a few rows were answered alone as they were in their batch; None before that was
            looked at.
        general: general ability of the model that was evaluated last; None where it is not measured.
        so_far: answers of an evaluation that goes on where one was broken off; None where none are kept.
    """

    def __init__(self, base: Loaded, settings: EvalSpec) -> None:
        self.base, self.settings = base, settings
        self.scores_next_task = settings.schedule == "forward" and base.family.head is None
        self.batch_invariant: bool | None = None
        self.general: dict[str, float] | None = None
        self.so_far: AnswersSoFar | None = None
        self._measure_ability = general_ability(base, settings)
        self._measured_baseline = False

    def evaluate(self, model: nn.Module, tasks: Sequence[Task], progress: Progress) -> list[TaskScore]:
        """Let a model answer the test (or dev) rows of several tasks in turn, and score the answers."""
        scores = []
        for task in tasks:
            progress.phase(f"answering {task.name}", len(getattr(task, self.settings.split)))
            score = score_task(
                model,
                self.base.family,
                task,
                scoring=self.settings.scoring,
                batch_size=self.settings.batch_size,
                split=self.settings.split,
                progress=progress.advance,
                so_far=self.so_far,
            )
            scores.append(score)
            progress.done()
            if self.batch_invariant is None:  # a fact of model and machine: one task shows it for all
                self.batch_invariant = self._is_batch_invariant(model, task, score)
        if self._measure_ability is not None:
            progress.phase("measuring general ability", 1)
            self.general = self._measure_ability(model)
            progress.done()
        return scores

    def fingerprint(self) -> Fingerprint:
        """Describe how the scores are made: precision, versions, and whether the batch changed an answer."""
        return fingerprint(self.base, self.settings.scoring, self.batch_invariant)

    def measure_baseline(self, folder: RunFolder, tasks: Sequence[Task], progress: Progress) -> None:
        """Score the base model before anything is done to it, and commit that.

        What the folder holds of it already is not measured again; nothing is where settings ask for nothing.
        """
        if self._measured_baseline:
            return
        self._measured_baseline = True
        if self.settings.general and not writes_text(self.base):
            progress.warn(f"general ability is not measured: models of family {self.base.family.name!r} write no text")
        committed = folder.before()
        data = {task.name: task.digest() for task in tasks} if self.scores_next_task else {}
        known = committed.facts if committed else BaselineFacts(base={}, data={})
        # A task whose rows are others by now was not measured, whatever its name.
        # What was measured of tasks that are not here now stands.
        here = {task.name for task in tasks}
        same = (name for name in known.base if name not in here or known.data[name] == data.get(name))
        old = {name: known.base[name] for name in same}
        missing = [task for task in tasks if task.name in data and task.name not in old]
        if not missing and (self._measure_ability is None or known.general is not None):
            return
        scores = self.evaluate(self.base.model, missing, progress)
        if world.is_main():
            base = {**old, **{score.task: score.score for score in scores}}
            rows = read_rows(AnswerRow, committed.path / PREDICTIONS) if committed else []
            rows = [row for row in rows if row.task in old] + [row for score in scores for row in score.rows()]
            data = {**{name: known.data[name] for name in old}, **data}
            facts = BaselineFacts(base=base, data=data, fingerprint=self.fingerprint(), general=self.general)
            with folder.commit_before(facts) as path:
                write_rows(path / PREDICTIONS, rows)
        progress.info("before: " + self.summary(scores))

    def summary(self, scores: Sequence[TaskScore]) -> str:
        """Return scores and general ability in one line."""
        named = {score.task: score.score for score in scores} | (self.general or {})
        return "  ".join(f"{name} {value:.1f}" for name, value in named.items())

    def _is_batch_invariant(self, model: nn.Module, task: Task, score: TaskScore) -> bool:
        """Return whether rows from the shortest to the longest are answered alone as together."""
        rows = getattr(task, self.settings.split)
        order = sorted(range(len(rows)), key=lambda k: (self.base.family.length(rows[k], task), k))
        # From all lengths, since rows differ from their batch by the padding that it gives them.
        few = sorted({order[k * (len(order) - 1) // (WITNESSES - 1)] for k in range(WITNESSES)})
        again = answer_rows(model, self.base.family, task, [rows[k] for k in few], self.settings.scoring, batch_size=1)
        return again == [score.predictions[k] for k in few]
