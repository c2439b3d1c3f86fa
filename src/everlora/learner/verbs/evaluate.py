"""Scores a learner as it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from everlora.archive.atomic import copy_checked
from everlora.archive.commits import Evaluation, KeptRows, Scored
from everlora.archive.committed import PREDICTIONS, Committed
from everlora.archive.history import now
from everlora.archive.manifest import COMMIT
from everlora.archive.outcome import Outcome
from everlora.archive.records import AnswerRow
from everlora.archive.schema import read_json, read_rows, write_rows
from everlora.data.task import Example, Task, digest_of_rows
from everlora.evaluation.scoring import TaskScore
from everlora.learner import experiment
from everlora.learner.learned import TESTS, select_tests, stored_tests
from everlora.learner.opened import load_learner, restore, task_named, tasks_of
from everlora.learner.scoring import committed_matrix, count_rows, goes_on
from everlora.learner.sequential import SequentialLearner
from everlora.learner.teaching import checked_keep
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings
from everlora.training import rehearsal
from everlora.training.stages import stages


class Evaluated(Outcome):
    """Holds scores of a learner as it is now.

    Attributes:
        scores: by task, percent.
        rows: how many rows were answered, by task.
        when_learned: what they were right after each task was learned.
        missing: tasks whose test rows are not at hand.
        other_rows: tasks that were scored on fewer or other rows than when they were learned: these are not noted.
    """

    scores: dict[str, float]
    rows: dict[str, int]
    when_learned: dict[str, float]
    missing: list[str]
    other_rows: list[str]


def evaluate(
    path: Path,
    tests: Mapping[str, Sequence[Example]] | None = None,
    *,
    keep: int = 0,
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Score a learner as it is now on the tasks whose test rows are given, stored, or still where they were.

    Scores on all the test rows that a task was learned with are noted with the newest task; others are told alone.

    Args:
        path: the learner's folder.
        tests: rows by task, in place of those at hand.
        keep: how many of each task's rows the learner may keep in its folder, to be judged by later.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown what is done.

    Raises:
        EverloraError: no such task, or a folder or row that cannot be used.
    """
    return judge(load_learner(path, here, progress=progress), tests, keep)


def judge(
    learner: SequentialLearner, tests: Mapping[str, Sequence[Example]] | None = None, keep: int = 0
) -> Evaluated:
    """Score a learner that is loaded; see `evaluate`."""
    keep = checked_keep(keep)
    # Rows at hand are test rows, whatever a run that searched for settings was scored on.
    how = learner.evaluator.settings
    learner.evaluator.settings = how.model_copy(update={"split": "test"})
    try:
        with learner.writing():
            known = tasks_of(learner)
            for name in (*(tests or ()), None):
                task_named(learner.folder.path, known, name)
            with goes_on(learner, len(known)):
                return _evaluate(learner, known, tests or {}, keep)
    finally:
        learner.evaluator.settings = how


def _evaluate(
    learner: SequentialLearner, known: Sequence[Task], tests: Mapping[str, Sequence[Example]], keep: int
) -> Evaluated:
    """Score a learner and note the scores; see `evaluate`."""
    given = [replace(task, test=tests.get(task.name, task.test)) for task in known]
    here_now = [task for task in given if len(task.test)]
    scores = _answers(learner, known, here_now)
    other = [task.name for task in here_now if not _same_rows(learner, task)]
    changed = _commit(learner, known, [score for score in scores if score.task not in other])
    changed |= _keep(learner, select_tests(here_now, keep, learner.spec.seed))
    if changed:
        experiment.finish(learner, committed_matrix(learner, known))
    return Evaluated(
        scores={score.task: score.score for score in scores},
        rows={score.task: len(score.targets) for score in scores},
        when_learned=when_learned(learner, known),
        missing=[task.name for task in given if not len(task.test)],
        other_rows=other,
    )


def _answers(learner: SequentialLearner, known: Sequence[Task], tasks: Sequence[Task]) -> list[TaskScore]:
    """Answer tasks with the model as it is, or each with its own adapter."""
    if learner.method.consolidator.rule != "keep":
        return learner.evaluator.evaluate(restore(learner, known), tasks, learner.progress)
    found = []
    for task in tasks:
        found += learner.evaluator.evaluate(restore(learner, known, task), [task], learner.progress)
    return found


def _same_rows(learner: SequentialLearner, task: Task) -> bool:
    """Return whether rows are all those that a task was scored on when it was learned."""
    card = next(stage.facts.cards[task.name] for stage in learner.folder.stages() if task.name in stage.facts.cards)
    return digest_of_rows(task.test, task.form) == card.tests


def _commit(learner: SequentialLearner, known: Sequence[Task], scores: Sequence[TaskScore]) -> bool:
    """Note scores beside the newest task, in the place of what was noted there; return whether there were any."""
    newest = learner.folder.stages()[-1]
    row = [*newest.facts.row, *[None] * len(known)][: len(known)]
    # What the newest task scored when it was learned stays as it was measured then.
    single = len(newest.facts.data) == 1
    first = {known[-1].name} if single and row[-1] is not None else set()
    scores = [score for score in scores if score.task not in first]
    found = {score.task: score.score for score in scores}
    if not found:
        return False
    facts = Scored(
        row=[found.get(task.name, old) for task, old in zip(known, row, strict=True)],
        fingerprint=learner.evaluator.fingerprint(),
        general=newest.facts.general,
        seconds=0.0,
        counts=count_rows(known, learner.folder.stages(), learner.spec.evaluation.split),
        kept=list(newest.kept),
    )
    old = read_rows(AnswerRow, newest.predictions) if newest.predictions.is_file() else []
    rows = [row for row in old if row.task not in found] + [row for score in scores for row in score.rows()]
    with learner.folder.commit_evaluation(newest, facts) as place:
        write_rows(place / PREDICTIONS, rows)
        carry_tests(newest, place)
    return True


def _keep(learner: SequentialLearner, rows: Sequence[Task]) -> bool:
    """Write test rows that the learner may keep beside the scores of their tasks; return whether there were any.

    Of a task of which as many are kept already, none are taken in their place.
    """
    changed = False
    for stage in learner.folder.stages():
        stored = stored_tests(stage)
        own = [one for one in rows if one.name in stage.facts.data and len(one.train) > len(stored.get(one.name, ()))]
        if not own:
            continue
        names = [one.name for one in own]
        kept = rehearsal.read_rows(stage.evaluation / TESTS) if stage.evaluation else []
        facts = read_json(Evaluation, stage.evaluation / COMMIT) if stage.evaluation else stage.facts
        own_fields = ("seconds", "counts", "kept")
        known = {name: getattr(facts, name) for name in Scored.model_fields if name not in own_fields}
        known |= {"seconds": facts.seconds if isinstance(facts, Evaluation) else 0.0, "counts": list(stage.counts)}
        act = KeptRows(date=now(stage.facts.history), rows={one.name: len(one.train) for one in own})
        with learner.folder.commit_evaluation(stage, Scored(**known, kept=[*stage.kept, act])) as place:
            if stage.predictions.is_file():
                copy_checked(stage.predictions, place / PREDICTIONS)
            rehearsal.write_rows(place / TESTS, [*(one for one in kept if one.name not in names), *own])
        changed = True
    return changed


def carry_tests(stage: Committed, place: Path) -> None:
    """Copy test rows that the learner may keep from the newest evaluation of a stage to the one that follows it."""
    if stage.evaluation is not None and (stage.evaluation / TESTS).is_file():
        copy_checked(stage.evaluation / TESTS, place / TESTS)


def when_learned(learner: SequentialLearner, known: Sequence[Task]) -> dict[str, float]:
    """Return the score of each task right after it was learned, where it was measured."""
    found = {}
    for stage, committed in zip(stages(learner.method, known), learner.folder.stages(), strict=True):
        row = committed.facts.row
        if len(stage.tasks) == 1 and stage.row < len(row) and (cell := row[stage.row]) is not None:
            found[stage.tasks[0].name] = cell
    return found
