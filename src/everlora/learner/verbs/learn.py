"""Teaches a learner one more task; the data of earlier ones may be gone."""

from __future__ import annotations

from pathlib import Path

from everlora.archive.commits import SpentBudget
from everlora.archive.committed import last_scores
from everlora.archive.folder import read_run
from everlora.archive.forecast import Forecast
from everlora.archive.outcome import Outcome
from everlora.core.errors import DataError, FolderError
from everlora.core.expressions import parse
from everlora.data.task import Task
from everlora.learner import experiment
from everlora.learner.opened import check_teachable, load_learner, spec_of, tasks_of
from everlora.learner.sequential import SequentialLearner
from everlora.learner.teaching import Teaching
from everlora.metrics.scores import ScoreMatrix
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings
from everlora.training.head_rate import check_head_rate


class Learned(Outcome):
    """Holds what came of a task that was taught.

    Attributes:
        task: its name; ``number`` from 1.
        scores: by task, of those whose test rows are at hand, percent.
        before: the same as they were last measured.
        seconds: of training.
        predicted_rise: of the losses of all earlier tasks together, nats per row; None where no part predicts it.
        warning: what was found amiss.
        spent: of a budget of forgetting, if there was one.
        forecast: what earlier tasks were expected to lose before the first step; None of a first task.
    """

    task: str
    number: int
    scores: dict[str, float]
    before: dict[str, float]
    seconds: float
    predicted_rise: float | None = None
    warning: str | None = None
    spent: SpentBudget | None = None
    forecast: Forecast | None = None


def learn(
    path: Path, task: Task, teaching: Teaching | None = None, here: RawSettings | None = None, *, progress: Progress
) -> Learned:
    """Teach a learner one more task; earlier tasks need no data, and are scored as far as test rows are at hand.

    Args:
        path: the learner's folder.
        task: with its rows.
        teaching: who teaches it and why, and what is set for it alone.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown every step.

    Raises:
        EverloraError: a folder, setting or row that cannot be used.
    """
    check_teachable(parse(read_run(path).settings.method))
    return teach(load_learner(path, here, progress=progress), task, teaching)


def teach(learner: SequentialLearner, task: Task, teaching: Teaching | None = None) -> Learned:
    """Teach a learner that is loaded; see `learn`."""
    if not isinstance(task, Task):
        raise DataError(f"{task!r} is no task (everlora.Task); give one, or several to follow")
    with learner.writing():  # from the first look at the folder on, so that it is read once
        return _teach(learner, task, teaching)


def _teach(learner: SequentialLearner, task: Task, teaching: Teaching | None) -> Learned:
    path, known = learner.folder.path, tasks_of(learner)
    check_teachable(learner.method)
    learner.teaching = teaching = teaching or Teaching(forecast=True)
    spec = learner.spec
    typed = {"device": spec.device, "trust_remote_code": spec.trust_remote_code, "save_steps": spec.save_steps}
    learner.spec = spec_of(path, learner.folder.record, {**typed, "train": dict(teaching.train)})
    check_head_rate(learner.spec, type(learner.base.family))
    again = next((one for one in known if one.name == task.name), None)
    if again is not None and (again.digest() != task.digest() or again is not known[-1]):
        what = "learned already" if again.digest() == task.digest() else "the name of a task that it has learned"
        raise FolderError(f"{path}: {task.name!r} is {what}; give the new task another --name")
    before = last_scores(learner.folder.stages())
    tasks = [*(known[:-1] if again is not None else known), task]
    result = experiment.finish(learner, learner.follow(tasks))
    done = learner.folder.stages()[-1].facts
    took = done.seconds if isinstance(done.seconds, float) else done.seconds.train
    return Learned(
        task=task.name,
        number=done.number,
        scores=scored(result.matrix, -1),
        before=before,
        seconds=took,
        predicted_rise=done.predicted_rise,
        warning=done.warning,
        spent=done.spent,
        forecast=done.forecast,
    )


def scored(matrix: ScoreMatrix, row: int) -> dict[str, float]:
    """Return the scores of one row of a matrix, by task."""
    return {name: cell for name, cell in zip(matrix.tasks, matrix.cells[row], strict=True) if cell is not None}
