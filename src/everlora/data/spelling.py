"""Compares how labels are spelt: invisible characters, several spellings, and labels that a metric takes for one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import combinations

from everlora.core.errors import DataError
from everlora.metrics import Answer, answer_metric
from everlora.metrics.label_keys import key_of
from everlora.metrics.registry import METRICS

INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls that are no white space, what Unicode calls default-ignorable, and marks of annotations."""
SELECTORS, TAGS = "\ufe00-\ufe0f\U000e0100-\U000e01ef", "\U000e0020-\U000e007f"
EMOJI = "\u00a9\u00ae\u203c\u2049\u2100-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
MEANT = re.compile(
    # Persian and its neighbours: a joiner within a word. Scripts of India and around: behind the sign of no vowel.
    "(?<=[\u0620-\u08ff\ufb50-\ufdff])[\u200c\u200d](?=[\u0620-\u08ff\ufb50-\ufdff])"
    "|(?<=[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u17d2])[\u200c\u200d]"
    # Emoji: families and the like, pictures instead of letters, keycaps, flags of regions.
    f"|(?<=[{EMOJI}\ufe0f])\u200d(?=[{EMOJI}])|(?<=[{EMOJI}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    f"|\U0001f3f4[{TAGS}]+"
    # Chinese characters, Mongolian letters and old Hangul, which these give another shape.
    f"|(?<=[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[{SELECTORS}]|(?<=[\u1820-\u18aa])[\u180b-\u180d\u180f]"
    "|\u115f(?=[\u1160-\u11a7])|(?<=[\u1100-\u115f])\u1160"
)
"""Invisible characters that do change how their neighbours look, and stay; labels must differ by more than these."""
RAW = "exact_match_raw"
"""The metric that looks at every character of a label."""
PAIRS = 64
"""So many labels are compared each with each; of more, only those of which the metric sees the same."""


def visible(text: str) -> str:
    """Return a label as everybody sees it: composed (Unicode's NFC) and without invisible characters.

    >>> visible("good\u200b"), visible("cafe\u0301") == "caf\u00e9"
    ('good', True)
    """
    if text.isascii() and text.isprintable():
        return text
    meant = {place for found in MEANT.finditer(text) for place in range(*found.span())}
    plain = INVISIBLE.sub(lambda found: found[0] if found.start() in meant else "", text)
    return unicodedata.normalize("NFC", plain)


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
        DataError: they are a set, or one of them is empty.
    """
    if isinstance(labels, set | frozenset):
        raise DataError(f"task {task!r}: labels are a set, which has no order; give a list")
    for label in labels:
        if not visible(label).strip():
            raise DataError(f"task {task!r}: the label set has an empty label ({shown(label)}); give it a name")


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
