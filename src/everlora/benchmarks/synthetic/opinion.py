"""Defines two tasks about good and bad: reviews, and headlines about companies."""

from __future__ import annotations

import re

from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, tidy
from everlora.benchmarks.synthetic.opinion_words import OUTLOOK_WORDS, REVIEW_WORDS
from everlora.benchmarks.synthetic.spec import Spec

_REVIEWS = ("negative", "mixed", "positive")
_OUTLOOK = ("negative", "neutral", "positive")
_FIRST_PERSON = re.compile(r"\b(I|me|my|we|us|our)\b")
_KINDS = ("meal", "stay", "gadget")
_BOTH = (
    "{good}, but {bad}",
    "{bad}. On the other hand, {good}",
    "{good}. Sadly, {bad}",
    "{bad}, although {good}",
    "{good}, and yet {bad}",
)
_TURN = (
    "a friend told me that {wrong}, but {true}, and {also}",
    "I had read that {wrong}. Not in our case: {true}, and {also}",
    "other people write that {wrong}. I disagree: {true}",
    "last year {wrong}, but this time {true}, and {also}",
)
_SAME = ("{true}, and {also}", "{true}. What is more, {also}", "{also}. {true}", "{true} and {also}")


def _hearsay(write: Writer, slot: str) -> str:
    # What others say about a place cannot be told in the first person.
    said = [clause for clause in REVIEW_WORDS[slot] if not _FIRST_PERSON.search(clause)]
    return write.fill(write.dice.pick(said))


def _review(dice: Dice, label: str) -> str:
    write = Writer(dice, REVIEW_WORDS)
    kind = dice.pick(_KINDS)
    good, bad = f"{kind}_good", f"{kind}_bad"
    if label == "mixed":
        body = write.fill(dice.pick(_BOTH), good=write.one(good), bad=write.one(bad))
    else:
        true, wrong = (good, bad) if label == "positive" else (bad, good)
        template = dice.pick(_TURN if dice.chance(0.35) else _SAME)
        body = write.fill(template, true=write.one(true), also=write.one(true), wrong=_hearsay(write, wrong))
    if dice.chance(0.6):
        body = f"{write.one(f'{kind}_open')}. {body}"
    if dice.chance(0.4):
        body = f"{body}. {write.one('verdict_' + label)}"
    return tidy(body + ".")


def _move(write: Writer, good: bool, by: str = "") -> str:
    # More profit is good and more debt is bad: neither the noun nor the verb decides alone.
    wanted = write.dice.chance(0.5)
    return f"{write.one('wanted' if wanted else 'unwanted')} {write.one(('up' if wanted == good else 'down') + by)}"


def _tail(write: Writer, slot: str) -> str:
    tail = write.one(slot)
    return tail if tail.startswith(",") else f" {tail}"


def _outlook(dice: Dice, label: str) -> str:
    write = Writer(dice, OUTLOOK_WORDS)
    company = write.one("company")
    if label == "neutral":
        text = f"{company} {write.one('neutral')}"
        if dice.chance(0.35):
            return tidy(f"{text}, with {_move(write, True)} but {_move(write, False)}")
        return tidy(f"{text}{_tail(write, 'detail')}")
    good = label == "positive"
    if dice.chance(0.5):
        text = f"{company} {write.one('period')} {_move(write, good, '_by')} {write.one('percent')}%"
    else:
        text = f"{company} {write.one(label)}"
    if dice.chance(0.45):
        return tidy(f"{text}{_tail(write, 'despite')} {write.one('worry_' + ('negative' if good else 'positive'))}")
    if dice.chance(0.5):
        return tidy(f"{text}, with {_move(write, good)}")
    return tidy(f"{text}{_tail(write, 'detail')}")


REVIEWS = Spec(
    name="reviews",
    labels=_REVIEWS,
    instruction="Decide whether this review is negative, mixed or positive.",
    draw=_review,
)
OUTLOOK = Spec(
    name="outlook",
    labels=_OUTLOOK,
    instruction="Decide whether this headline is negative, neutral or positive news for the company.",
    draw=_outlook,
)
