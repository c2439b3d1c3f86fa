"""Finds labels that a metric of answers takes for one: such labels have one key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from everlora.metrics import trace
from everlora.metrics.answers import AS_WRITTEN, literals, seen
from everlora.metrics.texts import normalise_all, words

Key = Callable[[str], Hashable]
SHORT = 100
"""Characters of a label below which one that differs never rounds to 100 % of edit similarity."""


def key_of(metric: str) -> Key:
    """Return the key of a metric of everlora's own: labels of different keys are never one label to it.

    Labels of one key may still be two to it, and None is the key of a label that it does not count at all.

    >>> key = key_of("rouge_l")
    >>> key("Öl") == key("Ül"), key("oil") == key("Oil!"), key("да") is None
    (True, True, True)
    """
    return _KEYS.get(metric, _letters)


def _letters(label: str) -> Hashable:
    return "".join(filter(str.isalnum, label)).casefold()


def _first_line(label: str) -> Hashable:
    return seen(next((line for line in label.splitlines() if line.strip()), ""))


@cache
def _tokenizer(stemmed: bool) -> Callable[[str], list[str]]:
    from rouge_score.tokenizers import DefaultTokenizer

    tokenize: Callable[[str], list[str]] = DefaultTokenizer(stemmed).tokenize
    return tokenize


def _tokens(label: str) -> Hashable:
    return tuple(_tokenizer(False)(label)) or None


def _stems(label: str) -> Hashable:
    return tuple(_tokenizer(True)(label)) or None


@cache
def _tokenizer_of_bleu() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    make: Any = Tokenizer13a
    return make()


def _bleu(label: str) -> Hashable:
    return tuple(sorted(_tokenizer_of_bleu()(label).split()))


def _sari(label: str) -> Hashable:
    return _bleu(label.lower())


def _rounded(plain: str) -> Hashable:
    return plain if len(plain) < SHORT else ""


_KEYS: dict[str, Key] = {
    **dict.fromkeys(("exact_match", "accuracy", "macro_f1"), seen),
    "exact_match_first_line": _first_line,
    "exact_match_empty": normalise_all,
    **dict.fromkeys(AS_WRITTEN, str.strip),
    "accuracy_first_character": lambda label: label.strip()[:1] or None,
    "first_character_trace": lambda label: label[:1] or None,
    "rouge_l": _tokens,
    "rouge_l_unicode": lambda label: tuple(words(label)) or label.strip(),
    **dict.fromkeys(("rouge_l_stemmed", "rouge_l_stemmed_first"), _stems),
    "rouge_l_trace": lambda label: frozenset(label.replace(".", " ").split()),
    "bleu": _bleu,
    **dict.fromkeys(("sari", "sari_trace"), _sari),
    "edit_similarity": lambda label: literals(label).strip(),
    "edit_similarity_rounded": lambda label: _rounded(literals(label).strip()),
    "edit_similarity_trace": lambda label: _rounded(trace.literals(label)),
}
