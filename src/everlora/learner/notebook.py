"""Shows a learner: in a line, in a notebook as a small table, and as records of how it stands and what was done."""

from __future__ import annotations

from everlora.analysis.status import Status, status
from everlora.archive.history import Act, read_history
from everlora.core.notebook import html_table
from everlora.learner.sequential import SequentialLearner

SHOWN = 6
"""Tasks that are named before the rest is left out."""


class Shown:
    """Is a learner that prints as a line, shows as a table in a notebook, and tells how it stands."""

    _learner: SequentialLearner

    def __repr__(self) -> str:
        return summary(self._learner)

    def _repr_html_(self) -> str:
        return summary_in_html(self._learner)

    def status(self) -> Status:
        """Tell what the learner knows, holds and has room for."""
        return status(self._learner.folder.path)

    def history(self) -> list[Act]:
        """Tell what was done to the learner: when, what, by whom and why."""
        return read_history(self._learner.folder.path)


def summary(learner: SequentialLearner) -> str:
    """Return method, model, folder and tasks of a learner in one line."""
    learned = [stage.facts.name for stage in learner.folder.stages()]
    names = f": {', '.join(learned[:SHOWN])}{', …' if len(learned) > SHOWN else ''}" if learned else ""
    tasks = f"{len(learned)} task{'' if len(learned) == 1 else 's'} learned{names}"
    return f"Learner({learner.method.name} on {learner.spec.model} in {learner.folder.path}, {tasks})"


def summary_in_html(learner: SequentialLearner) -> str:
    """Return the tasks of a learner as a table, with their scores when they were learned and now, percent."""
    if not learner.folder.stages():
        return html_table(summary(learner), ["task"], [])
    found = status(learner.folder.path)
    rows = [[task.name, _percent(task.score), _percent(task.score_now), task.because or ""] for task in found.tasks]
    stored = f"{found.holdings.memory_bytes / 1e6:.2f} MB are stored for the next task"
    return html_table(summary(learner), ["task", "when learned", "now", "because"], rows, stored)


def _percent(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"
