"""Defines two topic tasks with different kinds of text: news items, and questions in a forum."""

from __future__ import annotations

from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.forum_words import FORUM_WORDS
from everlora.benchmarks.synthetic.grammar import Writer, embedded, tidy
from everlora.benchmarks.synthetic.spec import Spec
from everlora.benchmarks.synthetic.topics_words import NEWS_WORDS

_NEWS = ("business", "health", "politics", "science", "sports")
_FORUM = ("business", "computing", "cooking", "science", "sports", "travel")


def _news(dice: Dice, label: str) -> str:
    write = Writer(dice, NEWS_WORDS)
    sentences = [write.one(f"{label}_lead")]
    if dice.chance(0.45):
        sentences.append(write.one(f"{label}_more"))
    elif dice.chance(0.5):
        other = dice.pick([topic for topic in _NEWS if topic != label])
        sentences.append(write.fill("{link}").replace("[aside]", write.one(f"{other}_aside")))
    elif dice.chance(0.7):
        # A paper packs its page: the first story is the item's topic, the other only stands beside it.
        other = dice.pick([topic for topic in _NEWS if topic != label])
        sentences.append(write.one("beside").replace("[aside]", write.one(f"{other}_lead")))
    if dice.chance(0.35):
        sentences.append(write.one("plain"))
    return tidy(". ".join(sentences) + ".").replace('".', '"')


def _forum(dice: Dice, label: str) -> str:
    write = Writer(dice, FORUM_WORDS)
    ask = write.one(f"{label}_ask")
    if dice.chance(0.4):
        other = dice.pick([topic for topic in _FORUM if topic != label])
        before = write.one(f"{other}_life") if dice.chance(0.55) else write.one(f"{label}_life")
        ask = f"{before}. {ask}"
    elif dice.chance(0.5):
        other = dice.pick([topic for topic in _FORUM if topic != label])
        ask = f"{embedded(write.one('earlier'), write.one(f'{other}_ask'))} {ask}"
    if dice.chance(0.6):
        ask = f"{write.one('hello')} {ask}"
    if dice.chance(0.5):
        ask = f"{ask} {write.one('bye')}"
    return tidy(ask)


NEWS = Spec(name="news", labels=_NEWS, instruction="Name the topic of this short news item.", draw=_news)
FORUM = Spec(
    name="forum", labels=_FORUM, instruction="Decide in which section of the forum this question belongs.", draw=_forum
)
