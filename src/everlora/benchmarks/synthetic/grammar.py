"""Writes texts by a grammar that fits on a page: templates with ``{slots}`` that a lexicon fills."""

from __future__ import annotations

import re
from collections.abc import Mapping

from everlora.benchmarks.synthetic.dice import Dice

Lexicon = Mapping[str, tuple[str, ...]]

_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeioAEIO](?!ne\b|nce\b)|u(?!ni|se)|U(?!ni)|8\d*|hour|honest))(?!Eu|eu)")
_SENTENCE = re.compile(r"(^|[.?!] )([a-z])")


def lexicon(*bases: Lexicon, **slots: str) -> Lexicon:
    """Build a lexicon from strings of alternatives, separated by ``|``; ``bases`` are merged in first."""
    merged: dict[str, tuple[str, ...]] = {}
    for base in bases:
        merged.update(base)
    for slot, text in slots.items():
        merged[slot] = tuple(" ".join(part.split()) for part in text.split("|") if part.strip())
    return merged


def tidy(text: str, capitals: bool = True) -> str:
    """Choose between 'a' and 'an' and begin every sentence with a capital."""
    text = _ARTICLE.sub(r"\1n ", text)
    return _SENTENCE.sub(lambda m: m[1] + m[2].upper(), text) if capitals else text


def embedded(frame: str, text: str) -> str:
    """Put ``text`` where ``frame`` says ``[text]``, as a quotation inside a sentence."""
    return frame.replace("[text]", tidy(text).rstrip("."))


class Writer:
    """Fills the templates of one text: ``fixed`` slots always alike, others if possible never twice alike."""

    def __init__(self, dice: Dice, words: Lexicon, **fixed: str) -> None:
        self.dice = dice
        self._fixed = fixed
        self._words = words
        self._used: set[str] = set()

    def one(self, slot: str) -> str:
        """Return an alternative of ``slot``, filled, and new in this text if there is one."""
        options = self._words[slot]
        choice = self.dice.pick(options)
        for _ in range(4):
            if choice not in self._used:
                break
            choice = self.dice.pick(options)
        self._used.add(choice)
        return self.fill(choice)

    def fill(self, template: str, **fixed: str) -> str:
        """Fill all slots of ``template``; ``fixed`` gives the values of some."""
        known = {**self._fixed, **fixed}
        return _SLOT.sub(lambda m: known[m[1]] if m[1] in known else self.one(m[1]), template)
