"""Compares how labels are spelt: invisible characters, several spellings, and labels that a metric takes for one."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import combinations

from everlora.core.errors import DataError
from everlora.metrics import Answer, answer_metric
from everlora.metrics.label_keys import key_of
from everlora.metrics.registry import METRICS
from everlora.metrics.texts import INVISIBLE, visible

RAW = "exact_match_raw"
"""The metric that looks at every character of a label."""
PAIRS = 64
"""So many labels are compared each with each; of more, only those of which the metric sees the same."""


def bare(text: str) -> str:
    """Return a label without any invisible character and in letters of ordinary width: what a reader takes it for.

    >>> bare("\u2764\ufe0f") == bare("\u2764"), bare("\uff11")
    (True, '1')
    """
    if text.isascii() and text.isprintable():
        return text
    plain = INVISIBLE.sub("", text)
    return unicodedata.normalize("NFC", "".join(map(_ordinary_width, plain)))


def _ordinary_width(char: str) -> str:
    wide = unicodedata.decomposition(char).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", char) if wide else char


def shown(label: str) -> str:
    """Return a label in quotes, by code points where another label could look the same."""
    plain = bare(label) == label and label.isprintable()
    return repr(label) if plain else ascii(label)


def check_names(task: str, labels: Iterable[str]) -> None:
    """Refuse labels without an order or a name: a set has another order in every process, and a head its rows by it.

    Raises:
        DataError: they are a set, or one of them is empty or has half a character (a lone surrogate).
    """
    if isinstance(labels, set | frozenset):
        raise DataError(f"task {task!r}: labels are a set, which has no order; give a list")
    for label in labels:
        if not visible(label).strip():
            raise DataError(f"task {task!r}: the label set has an empty label ({shown(label)}); give it a name")
        if any("\ud800" <= letter <= "\udfff" for letter in label):
            raise DataError(f"task {task!r}: the label {label!a} has half a character, which no tokenizer can write")


def plain_label(label: str) -> str:
    """Return a label without case, spacing and the full stop behind it: spellings of one label are equal.

    >>> plain_label(" Very  good."), plain_label("C++")
    ('very good', 'c++')
    """
    return " ".join(label.split()).casefold().rstrip(" .,;:") or label.strip()


@lru_cache(maxsize=1024)
def metric_for(metric: str, labels: tuple[str, ...]) -> tuple[str, tuple[str, str] | None]:
    """Choose the metric that tells labels apart: ``metric`` where it does, else the one that looks at every character.

    Metrics that were plugged in are taken at their word.

    Returns:
        The metric, and two labels that ``metric`` takes for one; None where there are none.

    Raises:
        DataError: no metric tells them apart.

    >>> metric_for("exact_match", ("bad", "good"))
    ('exact_match', None)
    >>> metric_for("exact_match_first_line", ("yes", "yes!"))
    ('exact_match_raw', ('yes', 'yes!'))
    """
    twins = None if metric in METRICS.from_outside() else _twins(metric, labels)
    if twins is None:
        return metric, None
    if (same := _twins(RAW, labels)) is not None:
        raise DataError(f"no metric tells the labels {shown(same[0])} and {shown(same[1])} apart; rename one")
    return RAW, twins


def _twins(metric: str, labels: Sequence[str]) -> tuple[str, str] | None:
    """Return the first two labels of which one, answered for the other, is wholly right."""
    row = answer_metric(metric).row
    for one, other in _pairs(metric, labels):
        full = row(Answer(other, (other,)))
        if 0 < full <= row(Answer(one, (other,))):
            return one, other
    return None


def _pairs(metric: str, labels: Sequence[str]) -> Iterable[tuple[str, str]]:
    if len(labels) <= PAIRS:
        yield from combinations(labels, 2)
        return
    key = key_of(answer_metric(metric).id)
    groups: dict[Hashable, list[str]] = {}
    for label in labels:
        if (found := key(label)) is not None:
            groups.setdefault(found, []).append(label)
    for group in groups.values():
        yield from combinations(group, 2)
