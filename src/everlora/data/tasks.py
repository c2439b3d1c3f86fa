"""Turn rows into a `Task`: which columns hold what, label names, and the checks that every task passes."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from everlora.core.errors import DataError, nearest
from everlora.data.chat import check_learned
from everlora.data.checks import Overlap, check_set, inferred, normalised, separate
from everlora.data.dialects import familiar
from everlora.data.rows import Row, Table, class_names
from everlora.data.task import Example, Form, Task
from everlora.metrics.answers import DEFAULT

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Convention:
    """Names of the columns of one way of writing rows; ``target`` is empty for chats, where the answer is inside.

    ``free`` answers are no labels unless a set of labels is given.
    """

    form: Form
    input: str
    target: str = ""
    free: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row must have."""
        return (self.input, self.target) if self.target else (self.input,)


UNREAD = frozenset({"system", "history", "instruction", "images", "videos", "audios", "tools"})
"""Columns that belong to a prompt in some dialect; where they are not read, a filled one is no small matter."""
ROLES = ("system", "developer", "user", "assistant", "tool")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

CONVENTIONS = (
    Convention("chat", "messages"),
    Convention("prompted", "prompt", "completion"),
    Convention("prompted", "prompt", "answer"),  # as TRACE writes them
    Convention("labelled", "input", "output"),  # as Super-NaturalInstructions writes them
    Convention("image", "image", "label", free=False),
    Convention("labelled", "text", "label", free=False),
)


def task_from_dataset(
    name: str,
    train: Iterable[Row],
    test: Iterable[Row],
    *,
    dev: Iterable[Row] | None = None,
    labels: Sequence[str] | None = None,
    instruction: str = "",
    metric: str = DEFAULT,
) -> Task:
    """Make a task from rows in memory: `datasets.Dataset` objects, or any iterables of mappings.

    The columns say what a row is: ``text`` and ``label``, ``prompt`` and ``completion`` (or ``answer``), ``input`` and
    ``output``, ``messages`` (a chat whose last message is the assistant's), or ``image`` (PIL image or array of bytes)
    and ``label``. A free answer may be a list: the first is learned, all are accepted.

    Args:
        name: the task's name in its stream.
        train: the rows to learn.
        test: the rows to be scored on.
        dev: the rows to tune on, if any.
        labels: the closed set of answers; by default the names of a `datasets.ClassLabel` column, else the labels of
            ``train`` in order of first appearance. Whole-number labels index it.
        instruction: one sentence that tells the model what to do (``text`` and ``label``, ``input`` and ``output``).
        metric: how answers are scored, the id of a metric (``everlora metrics`` lists them).

    Raises:
        DataError: a column is missing, a row is unusable, or a text stands in two splits.

    >>> films = [{"text": f"{mood} film number {n}", "label": mood} for n in range(4) for mood in ("good", "bad")]
    >>> task = task_from_dataset("films", train=films[:6], test=films[6:])
    >>> task.labels, len(task.train), task.test[0].target
    (('good', 'bad'), 6, 'good')
    """
    tables = {"train": _in_memory(train, f"{name} train"), "test": _in_memory(test, f"{name} test")}
    if dev is not None:
        tables["dev"] = _in_memory(dev, f"{name} dev")
    return build_task(name, tables, labels=labels, instruction=instruction, metric=metric, source="memory")


def build_task(
    name: str,
    tables: Mapping[str, Table],
    *,
    labels: Sequence[str] | None = None,
    instruction: str = "",
    text_column: str | None = None,
    label_column: str | None = None,
    overlap: Overlap = "error",
    metric: str = DEFAULT,
    source: str = "",
    left_out: Mapping[str, int] | None = None,
) -> Task:
    """Make a task from the tables of its splits (``train``, ``test`` and perhaps ``dev``).

    Rows that are left out here are counted with those ``left_out`` before.

    Raises:
        DataError: a column is missing, a row is unusable, or a text stands in two splits and ``overlap`` is "error".
    """
    convention = find_convention(tables["train"], text_column, label_column)
    if not convention.free:
        labels = labels or tables["train"].class_names.get(convention.target) or None
    read = {split: _examples(table, convention, labels) for split, table in tables.items()}
    if not labels and not convention.free:
        labels = inferred(tables["train"], read["train"], metric)
    check_set(name, labels or (), metric)
    for split, table in tables.items():
        _check_labels(table, read[split], labels)
    dropped = dict(left_out or {}) | separate(name, tables, read, convention.form, bool(labels), overlap)
    return Task(
        name=name,
        train=read["train"],
        dev=read.get("dev", ()),
        test=read["test"],
        labels=tuple(labels or ()),
        instruction=instruction if convention.form == "labelled" else "",
        form=convention.form,
        metric=metric,
        source=source,
        left_out=dropped,
    )


def find_convention(table: Table, text_column: str | None = None, label_column: str | None = None) -> Convention:
    """Decide by the columns of the first row how rows are to be read.

    Raises:
        DataError: no convention fits, or several do; the message names the columns found.
    """
    if not table.rows:
        raise DataError(f"{table.where} is empty; give it at least one row")
    found = list(table.rows[0])
    if text_column or label_column:
        if not text_column and "image" in found and "text" not in found:
            return Convention("image", "image", label_column or "label", free=False)
        return Convention("labelled", text_column or "text", label_column or "label", free=False)
    fitting = [c for c in CONVENTIONS if set(c.columns) <= set(found)]
    if len(fitting) == 1:
        return fitting[0]
    known = "; ".join(" + ".join(c.columns) for c in fitting or CONVENTIONS)
    spelt = {column.lower().strip() for column in map(str, found)}
    meant = next((" and ".join(c.columns) for c in CONVENTIONS if set(c.columns) <= spelt), "")
    if meant and not fitting:
        raise DataError(f"{table.where}: its columns are {', '.join(map(str, found))}; spell them {meant}")
    if fitting:
        raise DataError(f"{table.where}: the columns can be read in several ways ({known}); keep one of them")
    raise DataError(
        f"{table.where}: no usable columns (found: {', '.join(map(str, found))}); wanted one of: {known}; "
        "other names go into text_column and label_column"
    )


def split_keys(table: Table, convention: Convention) -> list[str]:
    """Return a key per row; rows of one key must go to one side when the table is split."""
    if convention.form == "image":
        return [str(index) for index in range(len(table.rows))]
    closed = not convention.free
    return [normalised(example, convention.form, closed) for example in _examples(table, convention, None)]


def _in_memory(rows: Iterable[Row], where: str) -> Table:
    features = getattr(rows, "features", None)  # only `datasets.Dataset` has them, and not every iterable need be one
    held = list(rows)
    for number, row in enumerate(held, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{where}, row {number}: not a mapping of columns but {type(row).__name__}")
    names = class_names(features) if features else {}
    return familiar(Table(where=where, rows=held, numbers=range(1, len(held) + 1), class_names=names))


def _examples(table: Table, convention: Convention, labels: Sequence[str] | None) -> list[Example]:
    names = _index_names(table.class_names.get(convention.target), labels)
    return [_example(row, table, convention, names, table.at(i)) for i, row in enumerate(table.rows)]


def _index_names(of_column: Sequence[str] | None, labels: Sequence[str] | None) -> Sequence[str]:
    """Names that whole-number labels index; a reordered `labels` must not change what the column's numbers mean."""
    if of_column and (not labels or set(labels) <= set(of_column)):
        return of_column
    return labels or ()


def _example(row: Row, table: Table, convention: Convention, names: Sequence[str], at: str) -> Example:
    for column in convention.columns:
        if column not in row:
            found = ", ".join(str(table.called.get(name, name)) for name in row) or "none"
            raise DataError(f"{at}: no column {table.called.get(column, column)!r} (found: {found})")
    for column in UNREAD.difference(convention.columns):
        if row.get(column):
            raise DataError(f"{at}: column {column!r} would change the prompt; write it into the text, or drop it")
    value = row[convention.input]
    if convention.form == "chat":
        return _chat(value, at)
    if convention.form == "image":
        from everlora.data.images import to_array

        return Example(to_array(value, at, table.folder), _label(row[convention.target], "label", names, at))
    asked, answer = (table.called.get(column, column) for column in convention.columns)
    text = _text(value, asked, at)
    if convention.free:
        return _answered(text, row[convention.target], answer, at)
    return Example(text, _label(row[convention.target], answer, names, at))


def _answered(text: str, value: Any, column: str, at: str) -> Example:
    """A free answer, or a list of those that are accepted."""
    answers = value if isinstance(value, list | tuple) else [value]
    if not answers:
        raise DataError(f"{at}: no answer in column {column!r}; give at least one")
    first, *others = (_text(answer, column, at) for answer in answers)
    return Example(text, first, tuple(dict.fromkeys(other for other in others if other != first)))


def _text(value: Any, column: str, at: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{at}: column {column!r} must hold text, found {_kind(value)}")
    if not value.strip():
        raise DataError(f"{at}: empty text in column {column!r}; fill or remove the row")
    if not value.isascii() and LONE_SURROGATE.search(value):
        # JSON can write half of a surrogate pair; no tokenizer and no file takes it.
        raise DataError(f"{at}: column {column!r} holds half a character (a lone surrogate); mend the text")
    return value


def _kind(value: Any) -> str:
    """What a cell holds, in the words of its file."""
    if value is None:
        return "nothing (null)"
    return "NaN, as an empty cell becomes" if isinstance(value, float) and math.isnan(value) else type(value).__name__


def _label(value: Any, column: str, names: Sequence[str], at: str) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        # CSV knows text only, so a digit that is no label's name is taken for a label's number.
        if not names or value in names or not value.isdecimal():
            return _text(value, column, at)
        value = int(value)
    try:
        index = operator.index(value)  # int and NumPy's whole numbers
    except TypeError:
        raise DataError(f"{at}: a label must be text or a whole number, found {_kind(value)}") from None
    if not names:
        return str(index)
    if 0 <= index < len(names):
        return names[index]
    raise DataError(f"{at}: label {index} is outside the label set; its {len(names)} labels are numbered from 0")


def _chat(value: Any, at: str) -> Example:
    if not isinstance(value, list | tuple) or not all(isinstance(m, Mapping) for m in value):
        raise DataError(f"{at}: 'messages' must be a list of objects with role and content")
    for number, message in enumerate(value, start=1):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise DataError(f"{at}: message {number} must have a {key!r} of type text")
        if message["role"] not in ROLES:
            raise DataError(
                f"{at}: message {number} has the role {message['role']!r}{nearest(message['role'], ROLES)}"
            )
        if message["role"] == "user":
            _text(message["content"], "content", f"{at}: message {number}")
    if len(value) < 2 or value[-1]["role"] != "assistant":
        raise DataError(f"{at}: the last of at least two messages must be the assistant's; it is what is learned")
    check_learned(value[-1], at)
    # Arrow fills keys that only some messages have with None; chat templates would take those for values.
    before = [{key: part for key, part in message.items() if part is not None} for message in value[:-1]]
    return Example(before, _text(value[-1]["content"], "content", at))


def _check_labels(table: Table, examples: Sequence[Example], labels: Sequence[str] | None) -> None:
    if not labels:
        return
    known = set(labels)
    for index, example in enumerate(examples):
        if example.target not in known:
            hint = nearest(example.target, known)
            raise DataError(f"{table.at(index)}: label {example.target!r} is outside the label set{hint}")
