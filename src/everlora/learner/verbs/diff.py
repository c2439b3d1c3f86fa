"""Compares two learners, or one learner after two of its tasks: weights, scores, answers and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path

from everlora.analysis.runs import Run, method_of
from everlora.archive.committed import Committed, last_scores
from everlora.archive.differences import differing_settings
from everlora.archive.folder import read_run
from everlora.archive.identity import RunRecord
from everlora.archive.outcome import Outcome
from everlora.archive.records import AnswerRow, Score
from everlora.archive.schema import Record, read_rows
from everlora.core.errors import ConfigError
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, difference, nearest
from everlora.learner.past import number_of


class ModuleDifference(Record):
    """Holds how far apart what two learners add to one module is: ‖M_b − M_a‖_F, and that by ‖M_a‖_F.

    Attributes:
        relative: None where the first adds nothing.
    """

    module: str
    norm: float
    relative: float | None


class ScoreChange(Record):
    """Holds two scores of one task as they were last measured, percent; None where one has none."""

    task: str
    a: Score
    b: Score


class AnswerChange(Record):
    """Holds a test row that one answers right and the other wrong; ``right`` is whether the second does."""

    task: str
    row: int
    target: str
    a: str
    b: str
    right: bool


class Difference(Outcome):
    """Holds what differs between two learners.

    Attributes:
        norm, relative: see `ModuleDifference`, over all modules; None where the weights cannot be compared.
        why: why not.
        modules: those that differ most, the most different first.
        scores: of the tasks whose scores differ.
        other_rows: tasks that the two were scored on other test rows of, so that neither scores nor answers compare.
        answers: rows that one answers right and the other wrong.
        compared: how many rows both have answered, by task.
        settings: names of the settings that differ.
    """

    a: str
    b: str
    norm: float | None
    relative: float | None
    why: str | None = None
    modules: list[ModuleDifference]
    scores: list[ScoreChange]
    other_rows: list[str]
    answers: list[AnswerChange]
    compared: dict[str, int]
    settings: list[str]

    @property
    def lost(self) -> list[AnswerChange]:
        """Return the rows that were right and are wrong."""
        return [one for one in self.answers if not one.right]

    @property
    def gained(self) -> list[AnswerChange]:
        """Return the rows that were wrong and are right."""
        return [one for one in self.answers if one.right]


@dataclass(frozen=True)
class Side:
    """Holds a learner as it was after one of its tasks.

    Attributes:
        run: the learner, with its tasks up to that one.
        record: of its run.yaml.
    """

    run: Run
    record: RunRecord


def diff(a: str | Path, b: str | Path, *, top: int = 10) -> Difference:
    """Compare two learners.

    Args:
        a: a folder, with ``@TASK`` behind it for the learner as it was after that task.
        b: the same of the second.
        top: how many modules are listed.

    Raises:
        EverloraError: no learner, or no such task.
    """
    one, other = side_of(str(a)), side_of(str(b))
    why = _incomparable(one, other)
    modules = [] if why else compare_updates(_added(one), _added(other))
    size = 0.0 if why else hypot(*(float(update.norm()) for update in _added(one).values()))
    norm = None if why else hypot(*(module.norm for module in modules))
    first, second = (_answers(side.run.stages) for side in (one, other))
    others = _other_rows((one, first), (other, second))
    compared, changes = compare_answers(_flat(first, others), _flat(second, others))
    return Difference(
        a=str(a),
        b=str(b),
        norm=norm,
        relative=norm / size if norm is not None and size else None,
        why=why,
        modules=modules[:top],
        scores=[change for change in _scores(one, other) if change.task not in others],
        other_rows=others,
        answers=changes,
        compared=compared,
        settings=_settings(one, other),
    )


def side_of(name: str) -> Side:
    """Read what ``FOLDER`` or ``FOLDER@TASK`` names.

    Raises:
        EverloraError: no learner, no such task, or one that is told apart from others no longer.
    """
    folder, at, task = (name, "", "") if Path(name).is_dir() else name.rpartition("@")
    path = Path(folder if at or not task else name)
    record = read_run(path)
    run = Run.read(path)
    if not at:
        return Side(run, record)
    number = number_of(path, run.stages, task)
    if (holder := run.stages[number - 1].facts.within) is not None:
        raise ConfigError(
            f"{task!r} was compacted into one update with the tasks up to {holder!r}; name {path}@{holder}"
        )
    return Side(Run(path, run.settings, method_of(path, record), run.stages[:number]), record)


def _incomparable(one: Side, other: Side) -> str | None:
    """Return why the weights of two learners cannot be compared; None where they can."""
    if one.run.settings.model != other.run.settings.model:
        return "they are of different base models"
    for side in (one, other):
        if not side.run.method.adapter.loads_with_peft:
            return f"{side.run.method.name!r} trains one {side.run.method.adapter.noun}, and no low-rank updates"
    return None


def _added(side: Side) -> dict[str, LowRank]:
    """Return what a learner adds to each module: the sum of its updates, their merge, or its newest one."""
    past, method = side.run.past(), side.run.method
    if method.consolidator.rule != "sum":
        past = UpdateHistory(past.deltas[-1:])
    if method.merge is None or method.merge.infer == "sum" or len(past) < 2:
        return {name: past.factors(name) for name in past.sites}
    merged = {name: method.merge.merge(delta[name].dense() for delta in past) for name in past.sites}
    return {name: nearest(dense, min(dense.shape)) for name, dense in merged.items()}


def compare_updates(a: Mapping[str, LowRank], b: Mapping[str, LowRank]) -> list[ModuleDifference]:
    """Compare updates module by module, the most different first; a module that one lacks counts as 0 there."""
    found = []
    for name in dict.fromkeys((*a, *b)):
        both = [side[name] for side in (a, b) if name in side]
        norm = float((difference(both[1], both[0]) if len(both) == 2 else both[0]).norm())
        size = float(a[name].norm()) if name in a else 0.0
        found.append(ModuleDifference(module=name, norm=norm, relative=norm / size if size else None))
    return sorted(found, key=lambda one: -one.norm)


def _scores(one: Side, other: Side) -> list[ScoreChange]:
    """Return the tasks whose last scores differ."""
    first, second = last_scores(one.run.stages), last_scores(other.run.stages)
    changes = [
        ScoreChange(task=task, a=first.get(task), b=second.get(task)) for task in dict.fromkeys((*first, *second))
    ]
    return [change for change in changes if change.a != change.b]


def _answers(stages: Sequence[Committed]) -> dict[str, list[AnswerRow]]:
    """Return the answers from which the last score of each learned task was made."""
    known = {name for stage in stages for name in stage.facts.data}
    found: dict[str, list[AnswerRow]] = {}
    for stage in stages:
        now: dict[str, list[AnswerRow]] = {}
        for row in read_rows(AnswerRow, stage.predictions) if stage.predictions.is_file() else []:
            if row.task in known:
                now.setdefault(row.task, []).append(row)
        found |= now
    return found


def _other_rows(*sides: tuple[Side, dict[str, list[AnswerRow]]]) -> list[str]:
    """Return the tasks that both have scored, on other test rows: as learned, or as many of them as were at hand."""
    names = [name for name in sides[0][1] if name in sides[1][1]]
    cards = [{name: c for one in side.run.stages for name, c in one.facts.cards.items()} for side, _ in sides]
    of = [
        {n: (known[n].tests if n in known else None, [(row.row, row.target) for row in rows[n]]) for n in names}
        for known, (_, rows) in zip(cards, sides, strict=True)
    ]
    return [name for name in names if of[0][name] != of[1][name]]


def _flat(answers: dict[str, list[AnswerRow]], without: Sequence[str]) -> dict[tuple[str, int], AnswerRow]:
    return {(task, row.row): row for task, rows in answers.items() if task not in without for row in rows}


def compare_answers(
    a: Mapping[tuple[str, int], AnswerRow], b: Mapping[tuple[str, int], AnswerRow]
) -> tuple[dict[str, int], list[AnswerChange]]:
    """Return how many rows both have answered, by task, and those that are right in one and wrong in the other.

    Rows whose targets differ are other rows.
    """
    compared: dict[str, int] = {}
    changes = []
    for key, first in a.items():
        second = b.get(key)
        if second is None or second.target != first.target:
            continue
        compared[first.task] = compared.get(first.task, 0) + 1
        if first.correct != second.correct:
            changes.append(
                AnswerChange(
                    task=first.task,
                    row=first.row,
                    target=first.target,
                    a=first.prediction,
                    b=second.prediction,
                    right=second.correct,
                )
            )
    return compared, changes


def _settings(one: Side, other: Side) -> list[str]:
    """Name the settings that differ: of the learners, and those with which their last tasks were taught."""
    first, second = ((side.run.stages[-1].facts.history, side.record) for side in (one, other))
    own, others = ((dict(history.train) if history else {}) for history, _ in (first, second))
    both = sorted(name for name in {*own, *others} if own.get(name) != others.get(name))
    names = [
        name
        for pair in ((first[1], second[1]), (second[1], first[1]))
        for name in differing_settings(pair[0].plain(), pair[1].plain())
    ]
    return list(dict.fromkeys((*names, *(f"train.{name}" for name in both))))
