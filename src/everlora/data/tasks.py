"""Turns rows into a `Task`: which columns hold what, label names, and the checks that every task passes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from everlora.core.errors import DataError, nearest
from everlora.data.chat import check_learned
from everlora.data.checks import AnyOverlap, normalised, separate
from everlora.data.columns import ColumnNames, Convention, find_convention, with_system
from everlora.data.dialects import alike, familiar
from everlora.data.ends import uneven_ends
from everlora.data.labels import check_numbers, check_set, inferred, kind_of, label_of
from everlora.data.notes import reading_notes
from everlora.data.prompt_parts import check_instruction, check_unread, without_columns
from everlora.data.rows import Row, Table, class_names
from everlora.data.spelling import check_names, shown
from everlora.data.task import Example, Task
from everlora.metrics.answers import DEFAULT
from everlora.metrics.texts import visible

ROLES = ("system", "developer", "user", "assistant", "tool")
SPLIT_SEED = 0
"""Fixed, so that runs with different seeds see the same test split and stay comparable."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def task_from_dataset(
    name: str,
    train: Iterable[Row],
    test: Iterable[Row],
    *,
    dev: Iterable[Row] | None = None,
    labels: Sequence[str] | None = None,
    instruction: str = "",
    metric: str = DEFAULT,
    shared_labels: bool | None = None,
    ignore_columns: Sequence[str] = (),
    **columns: str | None,
) -> Task:
    """Make a task from rows in memory: `datasets.Dataset` objects, or any iterables of mappings.

    The columns say what a row is: ``text`` and ``label``, ``prompt`` and ``completion`` (or ``answer``), ``input`` and
    ``output``, ``question`` and ``answer``, ``messages`` (a chat whose last message is the assistant's), or ``image``
    (PIL image or array of bytes) and ``label``. A free answer may be a list: the first is learned, all are accepted.

    Args:
        name: the task's name in its stream.
        train: the rows to learn.
        test: the rows to be scored on.
        dev: the rows to tune on, if any.
        labels: the closed set of answers; by default the names of a `datasets.ClassLabel` column, else the labels of
            ``train`` in order of first appearance. A whole number means the label of that name, or else of that place.
        instruction: one sentence that tells the model what to do (``text`` and ``label``, ``input`` and ``output``).
        metric: how answers are scored, the id of a metric (``everlora metrics`` lists them).
        shared_labels: whether labels mean the same as those of that name in other tasks, see `Task`.
        ignore_columns: columns that are meant not to be read.
        **columns: other names of columns: ``text_column``, ``label_column``, ``prompt_column``, ``completion_column``,
            ``messages_column``, ``system_column``.

    Raises:
        DataError: a column is missing, a row is unusable, or a text stands in two splits.

    >>> films = [{"text": f"{mood} film number {n}", "label": mood} for n in range(4) for mood in ("good", "bad")]
    >>> task = task_from_dataset("films", train=films[:6], test=films[6:])
    >>> task.labels, len(task.train), task.test[0].target
    (('good', 'bad'), 6, 'good')
    """
    known = [one.name for one in fields(ColumnNames)]
    for key in columns:
        if key not in known:
            raise DataError(f"task {name!r}: unknown argument {key!r}{nearest(key, known)}")
    names = ColumnNames(**columns)
    splits = {"train": train, "test": test} | ({"dev": dev} if dev is not None else {})
    task = build_task(
        name,
        {split: _in_memory(rows, f"{name} {split}", names, ignore_columns) for split, rows in splits.items()},
        labels=labels,
        instruction=instruction,
        columns=names,
        metric=metric,
        source="memory",
        shared_labels=shared_labels,
    )
    check_instruction(name, instruction, task.form)
    return task


def build_task(
    name: str,
    tables: Mapping[str, Table],
    *,
    labels: Sequence[str] | None = None,
    instruction: str = "",
    columns: ColumnNames | None = None,
    overlap: AnyOverlap = "error",
    metric: str = DEFAULT,
    source: str = "",
    left_out: Mapping[str, int] | None = None,
    shared_labels: bool | None = None,
) -> Task:
    """Make a task from the tables of its splits (``train``, ``test`` and perhaps ``dev``).

    Rows that are left out here are counted with those ``left_out`` before.

    Raises:
        DataError: a column is missing, a row is unusable, or a text stands in two splits and ``overlap`` is "error".
    """
    check_names(name, labels or ())
    systems = {split: with_system(table, columns) for split, table in alike(tables).items()}
    tables, columns = {split: table for split, (table, _) in systems.items()}, systems["train"][1]
    convention = find_convention(tables["train"], columns)
    if not convention.free:
        labels = labels or tables["train"].class_names.get(convention.target) or None
        check_numbers(tables, convention.target, labels or ())
    labels = [visible(label) for label in labels or ()]
    read = {split: _examples(table, convention, labels) for split, table in tables.items()}
    if not labels and not convention.free:
        labels = inferred(tables["train"], read["train"], metric)
    check_set(name, labels, metric)
    for split, table in tables.items():
        _check_labels(table, read[split], labels)
    notes = uneven_ends(read) if convention.form in ("prompted", "chat") else ()
    dropped = dict(left_out or {}) | separate(name, tables, read, convention.form, bool(labels), overlap)
    return Task(
        name=name,
        train=read["train"],
        dev=read.get("dev", ()),
        test=read["test"],
        labels=tuple(labels),
        instruction=instruction if convention.form == "labelled" else "",
        form=convention.form,
        metric=metric,
        source=source,
        left_out=dropped,
        notes=(*reading_notes(tables, convention, closed=bool(labels)), *notes),
        shared_labels=shared_labels,
    )


def split_off(table: Table, fraction: float, columns: ColumnNames, *, named: bool) -> tuple[Table, Table]:
    """Split a table into train and test, by text and not by row: a text that stands in it twice does not leak.

    Args:
        table: all rows.
        fraction: of the texts that go to test.
        columns: what the user calls the columns.
        named: whether a label set is given, so that it is not that of the training rows.

    Raises:
        DataError: a row is unusable, too few texts are different, or a label of test would not be learned.
    """
    convention = find_convention(table, columns)
    # A system prompt is no text by which rows differ; it is read after the split.
    rest = [{column: row[column] for column in row if column != columns.system_column} for row in table.rows]
    keys = _split_keys(table.with_rows(rest), convention)
    # Sorted before it is shuffled: a set has another order in every process.
    order = sorted(set(keys))
    random.Random(SPLIT_SEED).shuffle(order)
    held_out = set(order[: max(1, round(len(order) * fraction))])
    train = table.pick(i for i, key in enumerate(keys) if key not in held_out)
    test = table.pick(i for i, key in enumerate(keys) if key in held_out)
    if not train.rows:
        raise DataError(f"{table.where} has too few different rows for test_fraction {fraction}")
    if not (named or convention.free or table.class_names.get(convention.target)):
        _check_classes(train, test, convention.target, fraction)
    return train, test


def _check_classes(train: Table, test: Table, column: str, fraction: float) -> None:
    learned = {visible(str(row.get(column))) for row in train.rows}
    for index, row in enumerate(test.rows):
        if (label := visible(str(row.get(column)))) not in learned:
            raise DataError(
                f"{test.at(index)}: label {shown(label)} has so few rows that test_fraction {fraction} puts all of "
                f"them into test, and none is learned; add rows of it, or give a test file"
            )


def _split_keys(table: Table, convention: Convention) -> list[str]:
    """Return a key per row; rows of one key must go to one side when the table is split."""
    if convention.form == "image":
        return [str(index) for index in range(len(table.rows))]
    closed = not convention.free
    return [normalised(example, convention.form, closed) for example in _examples(table, convention, None)]


def _in_memory(rows: Iterable[Row], where: str, columns: ColumnNames, ignored: Sequence[str]) -> Table:
    features = getattr(rows, "features", None)  # only `datasets.Dataset` has them, and not every iterable need be one
    held = list(rows)
    for number, row in enumerate(held, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{where}, row {number}: not a mapping of columns but {type(row).__name__}")
    names = class_names(features) if features else {}
    table = without_columns(Table(where=where, rows=held, numbers=range(1, len(held) + 1), class_names=names), ignored)
    return table if columns else familiar(table)


def _examples(table: Table, convention: Convention, labels: Sequence[str] | None) -> list[Example]:
    names = _names(table.class_names.get(convention.target), labels)
    found = [_example(row, table, convention, names, table.at(i)) for i, row in enumerate(table.rows)]
    if convention.free and labels:
        return [replace(example, target=visible(example.target)) for example in found]
    return found


def _names(of_column: Sequence[str] | None, labels: Sequence[str] | None) -> tuple[Sequence[str], bool]:
    """Return names of labels, and whether a number is a place among them whatever their names.

    A reordered `labels` must not change what the numbers of a `datasets.ClassLabel` mean.
    """
    of_column = [visible(name) for name in of_column or ()]
    if of_column and (not labels or set(labels) <= set(of_column)):
        return of_column, True
    return labels or (), False


def _example(row: Row, table: Table, convention: Convention, names: tuple[Sequence[str], bool], at: str) -> Example:
    for column in convention.columns:
        if column not in row:
            found = ", ".join(str(table.called.get(name, name)) for name in row) or "none"
            raise DataError(f"{at}: no column {table.called.get(column, column)!r} (found: {found})")
    example = _read(row, table, convention, names, at)
    check_unread(row, convention.columns, example, at)
    return example


def _read(row: Row, table: Table, convention: Convention, names: tuple[Sequence[str], bool], at: str) -> Example:
    value = row[convention.input]
    if convention.form == "chat":
        return _chat(value, at)
    if convention.form == "image":
        from everlora.data.images import to_array

        return Example(to_array(value, at, table.folder), _label(row[convention.target], "label", names, at))
    question, answer = (table.called.get(column, column) for column in convention.columns)
    text = _text(value, question, at)
    if convention.free:
        return _answered(text, row[convention.target], answer, at)
    return Example(text, _label(row[convention.target], answer, names, at))


def _answered(text: str, value: Any, column: str, at: str) -> Example:
    """Return a free answer, or a list of those that are accepted."""
    answers = value if isinstance(value, list | tuple) else [value]
    if not answers:
        raise DataError(f"{at}: no answer in column {column!r}; give at least one")
    first, *others = (_text(answer, column, at) for answer in answers)
    return Example(text, first, tuple(dict.fromkeys(other for other in others if other != first)))


def _text(value: Any, column: str, at: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{at}: column {column!r} must hold text, found {kind_of(value)}")
    if not value.strip():
        raise DataError(f"{at}: empty text in column {column!r}; fill or remove the row")
    if not value.isascii() and LONE_SURROGATE.search(value):
        # JSON can write half of a surrogate pair; no tokenizer and no file takes it.
        raise DataError(f"{at}: column {column!r} holds half a character (a lone surrogate); mend the text")
    return value


def _label(value: Any, column: str, names: tuple[Sequence[str], bool], at: str) -> str:
    return _text(label_of(value, *names, at), column, at)


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
            raise DataError(f"{table.at(index)}: label {shown(example.target)} is outside the label set{hint}")
