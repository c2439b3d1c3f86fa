"""Lets a learner forget a task, and measures what is left of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from everlora.analysis.membership import membership_auc
from everlora.analysis.runs import method_of
from everlora.archive.atomic import explained
from everlora.archive.committed import Committed, last_scores
from everlora.archive.exchange import exchange, list_tasks, prepare
from everlora.archive.folder import read_run
from everlora.archive.history import Act, check_act, now
from everlora.archive.lock import writing
from everlora.archive.outcome import Outcome
from everlora.core.errors import ConfigError, TrainingError
from everlora.data.task import Task
from everlora.learner.given import check_same_rows
from everlora.learner.learned import stored_tests
from everlora.learner.opened import load_learner, restore, tasks_of
from everlora.learner.past import check_own_scores, committed_tasks, note_act, number_of, settle
from everlora.learner.removal import check_removable, drop_baseline, holder_of, remove_task
from everlora.learner.sequential import SequentialLearner
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.evaluate import judge
from everlora.learner.verbs.learn import learn
from everlora.models.families import Classifier
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings
from everlora.training.calibration import mean_loss
from everlora.training.forecast_summary import FILE as SUMMARY

How = Literal["taken back", "rebuilt", "removed"]


class Remains(Outcome):
    """Holds what a model shows of a task.

    Attributes:
        score: percent, where test rows are at hand.
        membership: AUC of telling its training rows from its test rows by their losses; 0.5 is chance.
        members, others: how many rows that is measured on.
    """

    score: float | None = None
    membership: float | None = None
    members: int = 0
    others: int = 0


class Forgotten(Outcome):
    """Holds what was forgotten, how, and what was measured.

    Attributes:
        task: its name.
        how: ``taken back``: it was the newest; ``rebuilt``: later tasks were learned again without it: in both cases
            the learner is, bit for bit, one that was never taught it. ``removed``: its update was taken out, and
            later tasks are as they were, learned on top of it.
        remaining: tasks that are known now.
        before, after: what the learner showed of it; ``after`` is None where nothing answers it any more.
        never: what a learner shows that was never taught it; None where none could be made.
        scores_before, scores: of the other tasks whose test rows are at hand, percent.
    """

    task: str
    how: How
    remaining: list[str]
    before: Remains
    after: Remains | None
    never: Remains | None
    scores_before: dict[str, float]
    scores: dict[str, float]

    def statement(self) -> str:
        """Say what was done and measured, and that nothing else is claimed."""
        if self.how == "removed":
            done = (
                f"the update of {self.task!r} was removed; later tasks are as they were, learned on top of it, so "
                f"that traces of it may be left in their updates"
            )
        else:
            done = f"the learner is, bit for bit, one that was never taught {self.task!r}"
        return f"{done}; what was measured is in the table, and nothing else is claimed"


@dataclass(frozen=True)
class Given:
    """Holds what is given to forget a task with: rows of tasks, and settings of this process."""

    tasks: Mapping[str, Task]
    here: RawSettings | None
    progress: Progress


def forget(
    path: Path,
    name: str,
    tasks: Mapping[str, Task] | None = None,
    *,
    rebuild: bool = False,
    by: str | None = None,
    because: str | None = None,
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> Forgotten:
    """Let a learner forget a task; its folder, and all that earlier acts have put aside, is deleted.

    Args:
        path: the learner's folder.
        name: of the task.
        tasks: tasks as they were learned, as far as their rows are at hand. With those of the task itself its traces
            are measured; with those of all later ones they can be learned again.
        rebuild: learn the later tasks again, so that the learner is one that was never taught the task.
        by: who does it, for the history.
        because: why.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown what is done.

    Raises:
        EverloraError: no such task, one that cannot be taken out, or rows that are not those that it was learned from;
            the learner is as it was.
    """
    check_act(by, because, rebuild=rebuild)
    given = Given(tasks or {}, here, progress or Progress())
    read_run(path)
    with writing(path, given.progress.warn), explained(path):
        stages = committed_tasks(path)
        number = number_of(path, stages, name)
        later, how = stages[number:], _way(path, stages, number, given, rebuild)
        learner = load_learner(path, here, progress=progress)
        known = tasks_of(learner)
        shown = given.tasks.get(name, known[number - 1])
        scores_before = last_scores(learner.folder.stages())
        before = _remains(learner, restore(learner, known, shown), shown)
        never = _never(path, stages, number, shown, given) if how == "removed" else None
        place = _prepared(path, stages, number, how)
        if how == "rebuilt":
            _learn_again(place, later, given)
        elif later:
            _remove(stages, number, known, place, learner)
        new, scores = _settled(place, how, given)
        after = _after(new, shown)
        note_act(place, Act(act="forget", date=now(), tasks=[name], by=by, because=because), stages)
        exchange(path, number - 1, aside=False, purge=True)
    return Forgotten(
        task=name,
        how=how,
        remaining=[stage.facts.name for stage in stages if stage.facts.name != name],
        before=before,
        after=after,
        never=never or (after if how != "removed" else None),
        scores_before={one: score for one, score in scores_before.items() if one in scores},
        scores=scores,
    )


def _way(path: Path, stages: Sequence[Committed], number: int, given: Given, rebuild: bool) -> How:
    """Return how a task is to be forgotten, once nothing speaks against that."""
    check_same_rows(stages, given.tasks)
    check_own_scores(path, stages[: number - 1])
    later = stages[number:]
    if rebuild and (holder := _inseparable(stages, number)) is not None:
        raise ConfigError(
            f"the tasks before {stages[number - 1].facts.name!r} were compacted into one update with it ({holder!r}), "
            f"and later ones cannot be learned again on top of them; the tasks as they were may lie in "
            f"{path / 'undone'}"
        )
    if rebuild and (missing := [one.facts.name for one in later if one.facts.name not in given.tasks]):
        raise ConfigError(f"to learn the later tasks again, give their data: --data {missing[0]}=FILE")
    if not rebuild:
        check_removable(method_of(path, read_run(path)), stages, number)
    return "taken back" if not later else "rebuilt" if rebuild else "removed"


def _inseparable(stages: Sequence[Committed], number: int) -> str | None:
    """Return whose update holds the tasks before one and that of it or a later one, too; None where none does."""
    earlier = (holder_of(stages, before) for before in range(1, number))
    names = [stage.facts.name for stage in stages[number - 1 :]]
    return next((holder for holder in earlier if holder in names), None)


def _prepared(path: Path, stages: Sequence[Committed], number: int, how: How) -> Path:
    """Prepare a learner of the tasks before one, without what the base model answered to it."""
    place = prepare(path, number - 1)
    # What is learned again is measured again, as by a learner that was never taught the task.
    drop_baseline(place, [one.facts.name for one in stages[number - 1 : None if how == "rebuilt" else number]])
    return place


def _remove(
    stages: Sequence[Committed], number: int, known: Sequence[Task], place: Path, learner: SequentialLearner
) -> None:
    """Write the later tasks into the prepared learner, without the update of the one that is forgotten."""
    own = learner.method.consolidator.rule == "keep"
    remove_task(stages, number, known, place, learner.base.family, own_heads=own)
    list_tasks(place)


def _settled(place: Path, how: How, given: Given) -> tuple[SequentialLearner, dict[str, float]]:
    """Open the prepared learner, complete it where nothing was learned again, and score it on its tasks."""
    if how == "rebuilt" or not any((place / "tasks").glob("[0-9]*")):
        learner = load_learner(place, given.here, progress=given.progress)
        return learner, last_scores(learner.folder.stages())
    learner = settle(place, given.here, given.progress)
    known = tasks_of(learner)
    if how == "removed" and any(len(task.test) for task in known):
        return learner, judge(learner).scores
    return learner, last_scores(learner.folder.stages())


def _learn_again(place: Path, later: Sequence[Committed], given: Given) -> None:
    """Teach a learner the later tasks, each as it was taught."""
    for stage in later:
        facts, name = stage.facts, stage.facts.name
        history, card = facts.history, facts.cards[name]
        teaching = Teaching(
            by=history.by if history else None,
            because=history.because if history else None,
            train=history.train if history else {},
            test=card.test,
            keep_tests=sum(map(len, stored_tests(stage).values())),
            may_lose=facts.spent.may_lose if facts.spent else None,
            force=facts.spent is not None and facts.spent.forced,
            forecast=facts.forecast is not None or (stage.path / SUMMARY).is_file(),
        )
        learn(place, given.tasks[name], teaching, given.here, progress=given.progress)


def _never(path: Path, stages: Sequence[Committed], number: int, shown: Task, given: Given) -> Remains | None:
    """Show what a learner shows of a task that it was never taught; None where it cannot be made or asked."""
    if not all(stage.facts.name in given.tasks for stage in stages[number:]):
        return None
    with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
        place = prepare(path, number - 1, Path(scratch) / "never")
        try:
            _learn_again(place, stages[number:], given)
        except (ConfigError, TrainingError):  # without the task, a budget of a later one may not be held
            return None
        return _after(load_learner(place, given.here, progress=given.progress), shown)


def _after(learner: SequentialLearner, shown: Task) -> Remains | None:
    """Show what a learner that does not know a task shows of it; None where none of its outputs stands for it."""
    if isinstance(learner.base.family, Classifier) or learner.method.consolidator.rule == "keep":
        return None
    return _remains(learner, restore(learner, tasks_of(learner)), shown)


def _remains(learner: SequentialLearner, model: nn.Module, task: Task) -> Remains:
    """Score a model on the test rows of a task, and let its losses tell the training rows from them."""
    family, score, membership = learner.base.family, None, None
    if len(task.test):
        score = learner.evaluator.evaluate(model, [task], learner.progress)[0].score
    if len(task.test) and len(task.train):
        losses = [[mean_loss(model, family, [(row, task)]) for row in rows] for rows in (task.train, task.test)]
        membership = membership_auc(*losses)
    return Remains(score=score, membership=membership, members=len(task.train), others=len(task.test))
