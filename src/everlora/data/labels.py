"""Finds the labels of a task: names behind numbers, the set of its training rows, slips and duplicates."""

from __future__ import annotations

import difflib
import math
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from everlora.core.errors import DataError
from everlora.data.rows import Table
from everlora.data.spelling import RAW, bare, plain_label, shown
from everlora.data.task import Example
from everlora.metrics import Answer, answer_metric
from everlora.metrics.answers import AS_WRITTEN
from everlora.metrics.texts import normalise, visible

COMMON = 10
"""A label in one row that is spelt like one in this many is taken for a slip."""
DIGITS = 1000
"""A longer number is a text; of many more digits, Python makes none of a text and no text of one."""
ALIKE = 0.8


def label_of(value: Any, names: Sequence[str], numbered: bool, at: str) -> str:
    """Return the label that a cell means.

    Args:
        value: text, or a whole number.
        names: the label set; empty where it is not known yet.
        numbered: whether a number is always a place in ``names``, as in a `datasets.ClassLabel`; else a number whose
            decimal text is a name means that name.
        at: where the row stands, for messages.

    Raises:
        DataError: it is neither, or a number outside the set.

    >>> label_of(1, ("1", "2", "3"), False, "here"), label_of(1, ("bad", "good"), False, "here")
    ('1', 'good')
    """
    if _is_bool(value):
        return str(bool(value))
    number = _number(value)
    if number is None:
        if not isinstance(value, str):
            raise DataError(f"{at}: a label must be text or a whole number, found {kind_of(value)}")
        return visible(str(value))
    text = value if isinstance(value, str) else str(number)
    if not names or (text in names and not (numbered and not isinstance(value, str))):
        return text
    if 0 <= number < len(names):
        return names[number]
    raise DataError(f"{at}: label {number} is outside the label set; its {len(names)} labels are numbered from 0")


def kind_of(value: Any) -> str:
    """Say what a cell holds, in the words of its file."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, int) and value.bit_length() > 3 * DIGITS:
        return f"a number of more than {DIGITS * 9 // 10} digits"
    return "NaN, as an empty cell becomes" if isinstance(value, float) and math.isnan(value) else type(value).__name__


def _is_bool(value: Any) -> bool:
    """Return whether a cell is a truth value, Python's or NumPy's."""
    return type(value).__name__ in ("bool", "bool_")


def _number(value: Any) -> int | None:
    """Return the whole number in a cell; CSV knows text only, so digits are one, but 007 is a name."""
    if isinstance(value, str):
        digits = value.isascii() and value.isdecimal() and len(value) <= DIGITS
        return int(value) if digits and str(int(value)) == value else None
    try:
        number = operator.index(value)  # int and NumPy's whole numbers
    except TypeError:
        return None
    return number if number.bit_length() <= 3 * DIGITS else None


def check_numbers(tables: Mapping[str, Table], column: str, labels: Sequence[str]) -> None:
    """Refuse a column whose numbers can be read in two ways: some are names of labels, others only places in the set.

    Raises:
        DataError: it is so; the message has both readings.
    """
    named = placed = ""
    for table in tables.values():
        if column in table.class_names:  # there a number is a place, by the type of the column
            continue
        for index, row in enumerate(table.rows):
            value = row.get(column)
            number = None if _is_bool(value) else _number(value)
            if number is None:
                continue
            if str(number) in labels:
                named = named or f"{number} ({table.at(index)}) is the label {str(number)!r}"
            elif 0 <= number < len(labels):
                placed = placed or f"{number} ({table.at(index)}) would be label number {number}, {labels[number]!r}"
            if named and placed:
                raise DataError(
                    f"the numbers of column {column!r} can be read in two ways: {named}, but {placed}, counted from "
                    f"0; write the labels' names in every row"
                )


def check_set(name: str, labels: Sequence[str], metric: str) -> None:
    """Refuse a label set in which one label stands twice, or in two spellings.

    Raises:
        DataError: it is so.
    """
    seen: dict[str, str] = {}
    looks: dict[str, str] = {}
    for label in labels:
        if (twin := looks.setdefault(bare(label), label)) != label:
            raise DataError(
                f"task {name!r}: the labels {twin!a} and {label!a} differ in invisible characters or in the "
                f"width of letters alone; keep one spelling"
            )
        if len(label.strip().splitlines()) > 1 and answer_metric(metric).row(Answer(label, (label,))) <= 0:
            raise DataError(
                f"task {name!r}: the label {shown(label)} has several lines, and the metric {metric!r} would count "
                f"its right answer as wrong; write labels in one line, or give metric: {RAW}"
            )
        # A raw metric looks at everything but the white space around an answer.
        key = label.strip() if metric in AS_WRITTEN else plain_label(label)
        if key in seen:
            if seen[key] == label:
                raise DataError(f"task {name!r}: in its label set, {label!r} stands twice; keep one spelling")
            raise DataError(
                f"task {name!r}: in its label set, {shown(label)} and {shown(seen[key])} are one label to the metric "
                f"{metric!r}; keep one spelling, or give metric: {RAW}"
            )
        seen[key] = label


def inferred(table: Table, examples: Sequence[Example], metric: str) -> tuple[str, ...]:
    """Return the labels of a task that names none: those of ``table``, its training rows, as they first appear.

    Raises:
        DataError: a label looks like a slip of another: they differ in case, spacing or a full stop, or it is rare
            and is spelt like a common one.
    """
    counts = Counter(example.target for example in examples)
    # From the end, so that the first row of each label is the one that a message names.
    row = {example.target: index for index, example in reversed(list(enumerate(examples)))}
    common = [label for label, count in counts.items() if count >= COMMON]
    raw = metric in AS_WRITTEN
    plain: dict[str, str] = {}
    lettered: dict[str, str] = {}
    for label, count in counts.items():
        key, letters = label.strip() if raw else plain_label(label), normalise(label) or label.strip()
        single = count == 1 and label.replace(" ", "").isalpha()  # not a code with numbers, of which many are alike
        close = difflib.get_close_matches(label, common, n=1, cutoff=ALIKE) if single else []
        like = plain.get(key) or next(iter(close), None)
        if like is None and not raw and (twin := lettered.get(letters)):
            fewer, more = sorted((count, counts[twin]))
            # (a) and a differ in punctuation alone; where both are common, neither is a slip.
            like = twin if fewer * COMMON <= more else None
        if like is not None:
            slip, other = sorted((label, like), key=lambda one: counts[one])
            raise DataError(
                f"{table.at(row[slip])}: label {shown(slip)} ({counts[slip]} of the rows) looks like a slip of "
                f"{shown(other)} ({counts[other]}); mend it, or name the label set under labels"
            )
        plain[key] = label
        lettered.setdefault(letters, label)
    return tuple(counts)
