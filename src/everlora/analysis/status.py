"""Tells what a learner knows, holds and has room for, from the records of its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from everlora.archive.commits import Commit, ProbedRise
from everlora.archive.committed import read_stages
from everlora.archive.folder import RUN, read_run
from everlora.archive.head_rows import shared_rows
from everlora.archive.outcome import Outcome
from everlora.archive.records import Holdings, Score, Seconds, Strength
from everlora.archive.root import PATTERNS
from everlora.archive.schema import Record
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject


class LearnedTask(Record):
    """Holds a task's record and its score right after it was learned (None where all are learned at once).

    Attributes:
        name, seconds, strengths, warning, predicted_rise, probed, epochs: see `everlora.archive.commits.StageFacts`.
        score: right after it was learned.
        score_now: as it was last measured.
        date, by, because: when it was taught, by whom and why, as far as that was noted.
        rows: how many it had, by split.
    """

    name: str
    score: Score
    score_now: Score = None
    date: str | None = None
    by: str | None = None
    because: str | None = None
    rows: dict[str, int] = Field(default_factory=dict)
    seconds: Seconds | float
    strengths: dict[str, Strength]
    warning: str | None
    predicted_rise: float | None = None
    probed: ProbedRise | None = None
    epochs: int | None = None


class Status(Outcome):
    """Holds a run as it stands.

    Attributes:
        model, method: by name.
        tasks: what was learned, in order.
        labels: of the classification head, by row; a label that is one task's own has the task behind its name. Where
            each task has a head of its own, those of all.
        shared_rows: whether tasks whose labels have the same names share rows of that head.
        stored_rows: rows of data that are kept for later tasks.
        holdings: bytes that are kept, room that is left, and errors of what is remembered in another form.
        loads: files that answering loads on top of the base model, with their bytes.
    """

    model: str
    method: str
    tasks: list[LearnedTask]
    labels: list[str]
    shared_rows: str | None = None
    stored_rows: int = 0
    holdings: Holdings
    loads: dict[str, int] = Field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Return what was found amiss when tasks were learned, each with its task."""
        return [f"{task.name}: {task.warning}" for task in self.tasks if task.warning]

    @property
    def forecast(self) -> str | None:
        """Return in words what each task was predicted to cost those before it; None where no part predicts that.

        Where rows of the earlier tasks were looked at, what it did cost stands behind it.
        """
        found = {task.name: f"{task.predicted_rise:.2g}" for task in self.tasks if task.predicted_rise is not None}
        seen = {task.name: task.probed for task in self.tasks if task.probed and task.probed.real_rise is not None}
        real = {name: f" (really {one.real_rise:.2g} ± {one.error:.2g})" for name, one in seen.items()}
        each = ", ".join(f"{name} {rise}{real.get(name, '')}" for name, rise in found.items())
        return f"predicted rise of all earlier tasks' loss, nats per row: {each}" if found else None

    def as_json(self) -> JsonObject:
        """Return the object that ``everlora status --json`` prints."""
        plain = self.plain()
        return {**{key: value for key, value in plain.items() if key != "holdings"}, **self.holdings.plain()}


def status(path: Path) -> Status:
    """Read how a run stands: what its COMMITs say, whose hashes the manifest has; nothing is loaded.

    Raises:
        FolderError: no run, damaged, or nothing learned yet.
    """
    record, done = read_run(path), [one.facts for one in read_stages(path, hashes=False, complete=True)]
    if not done:
        raise FolderError(f"{path} holds no learned task yet")
    if record.id != done[0].run:
        raise FolderError(f"{path / RUN} is of another run than its tasks; everlora verify {path} --repair")
    sequence, each = record.composition.regime == "sequence", record.composition.consolidator == "keep"
    labels = list(dict.fromkeys(label for facts in done for label in facts.labels)) if each else done[-1].labels
    label_rows = {name: rows for facts in done for name, rows in facts.label_rows.items()}
    return Status(
        model=record.settings.model,
        method=record.composition.name,
        tasks=[_learned(facts, done, sequence) for facts in done],
        labels=labels,
        # Where each task has a head of its own, rows of the same number are not the same.
        shared_rows=None if each else shared_rows(labels, label_rows),
        stored_rows=sum(facts.stored_rows for facts in done),
        holdings=done[-1].holdings or _measured_again(path),
        loads=_loads(path, each),
    )


def _learned(facts: Commit, done: Sequence[Commit], sequence: bool) -> LearnedTask:
    """Return what is told of one task of those that were learned."""
    place, history = facts.number - 1, facts.history
    measured = [one.row[place] for one in done if sequence and len(one.row) > place and one.row[place] is not None]
    rows = Counter[str]()
    for card in facts.cards.values():
        rows.update(card.rows)
    return LearnedTask(
        name=facts.name,
        score=facts.row[place] if sequence and len(facts.row) > place else None,
        score_now=measured[-1] if measured else None,
        date=history.date if history else None,
        by=history.by if history else None,
        because=history.because if history else None,
        rows=dict(rows),
        seconds=facts.seconds,
        strengths=facts.strengths,
        warning=facts.warning,
        predicted_rise=facts.predicted_rise,
        probed=facts.probed,
        epochs=facts.epochs,
    )


def _loads(path: Path, each: bool) -> dict[str, int]:
    """List the files that answering loads, with their bytes: those at the root, or of each task its own."""
    places = sorted((path / "tasks").glob("[0-9]*")) if each else [path]
    found = [file for place in places for pattern in PATTERNS for file in sorted(place.glob(pattern))]
    return {str(file.relative_to(path)): file.stat().st_size for file in found if file.name != "memory.safetensors"}


def _measured_again(path: Path) -> Holdings:
    """Measure what a run holds from its weights: one that an everlora before schema 3 made did not note it."""
    from everlora.analysis.runs import Run

    return Run.read(path).holdings()
