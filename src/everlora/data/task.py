"""Defines what a model learns from: an `Example` is a row, a `Task` its rows, a `TaskStream` tasks in order.

A task is data and nothing else. How an example becomes tokens is the business of a model family
(`everlora.models.families`). The parts of a prompt are separate here, so that a long text can be cut without cutting
the instruction or the answer.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import Any, Literal

from everlora.core.errors import ConfigError, DataError, nearest
from everlora.core.notebook import html_table
from everlora.data.spelling import check_names, metric_for, shown
from everlora.metrics import Answer, answer_metric
from everlora.metrics.answers import DEFAULT

LONGEST_NAME = 200
"""Bytes of a task's name: file systems take 255 for a folder, which has a number and an ending, too."""
SHOWN = 120
"""Characters of a row that a notebook shows."""
Form = Literal["labelled", "prompted", "chat", "image"]
Turns = Literal["last", "all"]


@dataclass(frozen=True, slots=True)
class Example:
    """Is one row: an input, and the answer to it.

    >>> Example("a film to see twice", "positive").answered("negative").accepted
    ('positive',)

    Attributes:
        input: the text (`labelled`), the whole prompt (`prompted`), a list of chat messages without the last
            answer (`chat`), or an array of shape (height, width) or (height, width, 3) of unsigned bytes (`image`).
        target: the answer: a label's name, or free text.
        also: further answers that are right; only `target` is learned.
    """

    input: Any
    target: str
    also: tuple[str, ...] = ()

    def answered(self, prediction: str) -> Answer:
        """Pair what a model answered with what is right, for a metric of answers."""
        source = self.input if isinstance(self.input, str) else ""
        if isinstance(self.input, list) and self.input:
            source = str(self.input[-1].get("content", ""))
        return Answer(prediction, (self.target, *self.also), source)


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """Holds what a learner's folder knows of a task's rows when the rows themselves are gone.

    Attributes:
        digest: of the task as it was learned.
        answer_tokens: the longest answer; None where answers are no text.
        special: special tokens that stand in its targets, by name.
    """

    digest: str
    answer_tokens: int | None = None
    special: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Task:
    """Is one task of a stream.

    Attributes:
        name: short, unique in its stream, used in folder names (letters, digits, ``-`` and ``_``).
        train, dev, test: the splits. ``dev`` may be empty; tuning uses it and never ``test``.
        labels: the closed set of answers, in order; empty for free text.
        instruction: one sentence that tells the model what to do; shown with the options (`labelled` only).
        form: what ``Example.input`` holds.
        metric: how an answer is scored; the id of a metric of answers (``everlora metrics``).
        source: where the data come from, for the run's record.
        shared_labels: whether a classification head answers with the rows that labels of the same names have in other
            tasks that share theirs (True), or with rows of the task's own (False, the default): a word may mean
            something else in every task. Models that answer in text look at neither.
        prompt_limit: length in tokens to which the benchmark's authors cut a prompt, where it is longer than a model's
            context; None where nobody says.
        left_out: how many rows of the source are not here, by split and reason, for the run's record.
        notes: what was done to the data that a reader of its numbers should know; a run says each once.
        turns: which answers of a chat are training rows: the last of each, or all.
        remembered: what is known of rows that are not here, of a task that was learned; its splits may be empty.

    >>> rows = [Example("a good film", "positive"), Example("a dull film", "negative")]
    >>> films = Task(name="films", train=rows, test=rows[:1], labels=("negative", "positive"))
    >>> len(films.take(train=1).train)
    1
    """

    name: str
    train: Sequence[Example]
    test: Sequence[Example]
    dev: Sequence[Example] = ()
    labels: tuple[str, ...] = ()
    instruction: str = ""
    form: Form = "labelled"
    metric: str = DEFAULT
    source: str = ""
    shared_labels: bool | None = None
    prompt_limit: int | None = field(default=None, compare=False)
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    turns: Turns = field(default="last", compare=False)
    remembered: Remembered | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise DataError(f"task name {self.name!r} must consist of letters, digits, '-' and '_'")
        if len(self.name.encode()) > LONGEST_NAME:
            raise DataError(
                f"task name {self.name[:40]!r}… has {len(self.name.encode())} bytes, too long for the name of a "
                f"folder; take at most {LONGEST_NAME}"
            )
        check_names(self.name, self.labels)
        for split in ("train", "test"):
            if not len(getattr(self, split)) and self.remembered is None:
                raise DataError(f"task {self.name!r} has an empty {split} split; give it at least one row")
        try:  # a metric is found under other spellings; records and digests have its id
            object.__setattr__(self, "metric", answer_metric(self.metric).id)
        except ConfigError as error:
            raise DataError(f"task {self.name!r}: {error}") from None
        self._score_by_distinct_labels()
        if self.labels:
            known = set(self.labels)
            for split in ("train", "dev", "test"):
                for row, example in enumerate(getattr(self, split), start=1):
                    if example.target not in known:
                        raise DataError(
                            f"task {self.name!r}, {split} row {row}: label {example.target!r} is outside the label set"
                            f"{nearest(example.target, known)}"
                        )

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(rows):,} {name}" for name, rows in self._splits().items() if len(rows))
        answers = f"{len(self.labels)} labels" if self.labels else "free text"
        return f"Task({self.name!r}: {splits or 'rows not at hand'}, {answers})"

    def _splits(self) -> dict[str, Sequence[Example]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}

    def _repr_html_(self) -> str:
        rows = [
            [
                f"{split} {k}",
                shorten(str(row.input), SHOWN, placeholder="…"),
                shorten(row.target, SHOWN, placeholder="…"),
            ]
            for split, own in self._splits().items()
            for k, row in enumerate([own[k] for k in range(min(2, len(own)))])
        ]
        return html_table(repr(self), ["row", "input", "target"], rows, shorten(self.instruction, SHOWN))

    def _score_by_distinct_labels(self) -> None:
        """Score by a metric that tells the labels apart where the one that is named does not, and note that."""
        metric, twins = metric_for(self.metric, tuple(self.labels))
        if twins is not None:
            same = f"the labels {shown(twins[0])} and {shown(twins[1])} are one answer"
            note = f"scored by {metric}: to {self.metric} {same}"
            object.__setattr__(self, "metric", metric)
            object.__setattr__(self, "notes", (*self.notes, note))

    def take(self, train: int | None = None, evaluate: int | None = None, *, seed: int = 0) -> Task:
        """Return the task with at most ``train`` training rows, and ``evaluate`` dev and as many test rows.

        Rows are drawn with ``seed``, in equal shares of each label, and stay in the order of the file; a split with no
        more rows than that stays as it is. Labels without any row left are named in `notes`.

        >>> rows = [Example(f"film {n}", "bad" if n < 50 else "good") for n in range(100)]
        >>> films = Task(name="films", train=rows, test=rows, labels=("bad", "good"))
        >>> [row.target for row in films.take(train=4).train]
        ['bad', 'bad', 'good', 'good']
        """
        limits = {"train": train, "dev": evaluate, "test": evaluate}
        taken: dict[str, Any] = {}
        notes = list(self.notes)
        for split, most in limits.items():
            rows: Sequence[Example] = getattr(self, split)
            taken[split] = rows
            if most is None or len(rows) <= most:
                continue
            classes = [row.target for row in rows] if self.labels or self.form == "image" else None
            taken[split] = [rows[index] for index in sample_rows(len(rows), most, seed, classes)]
            here = {row.target for row in taken[split]}
            if gone := list(dict.fromkeys(label for label in classes or () if label not in here)):
                listed = ", ".join(map(repr, gone[:LISTED])) + (", ..." if len(gone) > LISTED else "")
                notes.append(f"{most} {split} rows are fewer than the labels: none is left of {len(gone)} ({listed})")
        return replace(self, **taken, notes=tuple(notes))

    def take_of_each(self, train: int | None = None, evaluate: int | None = None, *, seed: int = 0) -> Task:
        """Return the task with at most ``train`` training, and ``evaluate`` dev and test rows of each class.

        Rows are drawn with ``seed`` and stay in the order of the file; every class that has rows keeps some.

        Raises:
            DataError: answers are free text, which has no classes.
        """
        if train is None and evaluate is None:
            return self
        if not self.labels and self.form != "image":
            raise DataError(
                f"task {self.name!r} has no label set, so its rows cannot be counted per class; give a number per task"
            )
        dev, test = (_of_each(rows, evaluate, seed) for rows in (self.dev, self.test))
        return replace(self, train=_of_each(self.train, train, seed), dev=dev, test=test)

    @property
    def shares_labels(self) -> bool:
        """Return whether its labels are those of other tasks that have the same names; see `shared_labels`."""
        return bool(self.shared_labels)

    def digest(self) -> str:
        """Hash all rows, labels, the instruction and the metric: two tasks with one digest are the same task."""
        if self.remembered is not None:
            return self.remembered.digest
        content: list[Any] = [self.name, self.labels, self.instruction, self.form]
        if self.metric != DEFAULT:  # what came later must not change the digests that earlier runs have recorded
            content.append(self.metric)
        if self.shared_labels is not None:
            content.append({"shared_labels": self.shared_labels})
        sha = hashlib.sha256(json.dumps(content).encode())
        for split in (self.train, self.dev, self.test):
            # Marks between the pieces, so that no text can be moved from one to the next without another digest.
            sha.update(b"\x00split")
            _hash_rows(sha, split, self.form)
        return sha.hexdigest()[:16]


LISTED = 8
"""A message names so many labels and no more."""


def sample_rows(rows: int, most: int, seed: int, classes: Sequence[Any] | None = None) -> list[int]:
    """Draw ``most`` of so many rows, at random and by ``seed`` alone, and return their indices in order.

    Args:
        rows: how many there are.
        most: how many are drawn; all where there are no more.
        seed: of the draw. Fewer rows of one seed are among the more rows of that seed.
        classes: the class of each row; every class has its share of the rows drawn, and one row at least while there
            are as many rows as classes.

    >>> sample_rows(6, 2, seed=0, classes="aaabbb")
    [2, 4]
    """
    if rows <= most:
        return list(range(rows))
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    sizes, seen, ranked = Counter(classes or ()), Counter[Any](), []
    for place, index in enumerate(order):
        kind = classes[index] if classes else None
        # The k-th row of a class has the rank k / rows of the class: the lowest ranks hold every class in proportion.
        ranked.append((seen[kind] / sizes[kind] if classes else 0.0, place, index))
        seen[kind] += 1
    return sorted(index for _, _, index in sorted(ranked)[:most])


def _of_each(rows: Sequence[Example], most: int | None, seed: int) -> Sequence[Example]:
    """Draw at most so many rows of each class, in the order of the file; fewer of one seed are among the more."""
    if most is None:
        return rows
    places: dict[str, list[int]] = {}
    for index in random.Random(seed).sample(range(len(rows)), len(rows)):
        places.setdefault(rows[index].target, []).append(index)
    return [rows[index] for index in sorted(index for drawn in places.values() for index in drawn[:most])]


def digest_of_rows(rows: Sequence[Example], form: Form) -> str:
    """Hash rows alone: their inputs and all their answers."""
    sha = hashlib.sha256()
    _hash_rows(sha, rows, form)
    return sha.hexdigest()[:16]


def _hash_rows(sha: Any, rows: Sequence[Example], form: Form) -> None:
    for example in rows:
        raw = example.input.tobytes() if form == "image" else json.dumps(example.input).encode()
        sha.update(raw + b"\x01" + example.target.encode() + b"\x02")
        for other in example.also:
            sha.update(b"\x03" + other.encode())
