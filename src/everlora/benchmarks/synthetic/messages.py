"""Defines three tasks about messages: what a customer wants, whether an answer is needed, formal or informal."""

from __future__ import annotations

import re

from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, embedded, tidy
from everlora.benchmarks.synthetic.intent_words import INTENT_WORDS
from everlora.benchmarks.synthetic.message_words import REGISTER_WORDS, REPLY_WORDS
from everlora.benchmarks.synthetic.spec import Spec

_INTENT = ("billing", "cancellation", "change", "delivery", "fault", "login", "praise", "refund")


_SETTLED = (
    'My last message ("[text]") has been dealt with.',
    'Last {month} I wrote "[text]" and you solved that at once.',
    'You need not look into my earlier message, "[text]"; this is about something else.',
)
# The same frames for all labels: what is quoted was said before and by somebody else, and only the rest counts.
_QUOTES = (
    'On {day} you wrote "[text]".',
    '{who} said to me on {day}: "[text]".',
    'I found your note "[text]" at home.',
)


def _settled(dice: Dice, write: Writer, label: str) -> str:
    return embedded(dice.pick(_SETTLED), write.one(label))


def _quoted(dice: Dice, write: Writer, text: str) -> str:
    return re.sub(r'([?!]")\.', r"\1", embedded(write.fill(dice.pick(_QUOTES)), text))


def _intent(dice: Dice, label: str) -> str:
    # One message is about one thing, however often it is named.
    item, plan = dice.pick(INTENT_WORDS["item"]), dice.pick(INTENT_WORDS["plan"])
    write = Writer(dice, INTENT_WORDS, item=item, plan=plan)
    parts = [write.one(label)]
    draw = dice.below(10)
    if draw < 4:
        parts.insert(0, write.one("before"))
    elif draw < 8:
        other = dice.pick([name for name in _INTENT if name != label])
        parts.insert(
            0, write.one(f"besides_{other}") if dice.chance(0.4) else write.fill(_settled(dice, write, other))
        )
    if dice.chance(0.35):
        parts.insert(0, write.one("hello"))
    if dice.chance(0.4):
        parts.append(write.one("bye"))
    return tidy(" ".join(parts))


def _reply(dice: Dice, label: str) -> str:
    write = Writer(dice, REPLY_WORDS)
    # Both kinds may hold a question mark, a plan and thanks; only some sentences wait for an answer.
    parts = [write.one("news"), write.one("asks" if label == "yes" else "tells")]
    if dice.chance(0.4):
        parts.append(write.one("news"))
        parts[1], parts[2] = (parts[2], parts[1]) if dice.chance(0.5) else (parts[1], parts[2])
    if dice.chance(0.35):
        quote = write.one("tells" if label == "yes" else "asks")
        parts = [_quoted(dice, write, quote), write.one("asks" if label == "yes" else "tells")]
    if dice.chance(0.5):
        parts.insert(0, write.fill("{hi} {first}{comma}"))
    if dice.chance(0.5):
        parts.append(write.one("bye"))
    return tidy(" ".join(parts))


def _register(dice: Dice, label: str) -> str:
    write = Writer(dice, REGISTER_WORDS)
    parts = [write.one(label)]
    if dice.chance(0.3):
        parts.append(write.one(label))
    if dice.chance(0.3):
        parts.insert(dice.below(2), _quoted(dice, write, write.one("informal" if label == "formal" else "formal")))
    parts += [write.one("plain") for _ in range(dice.between(1, 2))]
    return " ".join(tidy(part) for part in dice.shuffled(parts))


INTENT = Spec(name="intent", labels=_INTENT, instruction="Say what this customer mainly writes about.", draw=_intent)
REPLY = Spec(
    name="reply", labels=("no", "yes"), instruction="Does the writer of this message expect an answer?", draw=_reply
)
REGISTER = Spec(
    name="register",
    labels=("formal", "informal"),
    instruction="Is this message written in a formal or an informal style?",
    draw=_register,
)
