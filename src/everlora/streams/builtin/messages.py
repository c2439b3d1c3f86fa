"""Three tasks about messages: what a customer wants, whether an answer is needed, formal or informal."""

from __future__ import annotations

from everlora.streams.builtin.dice import Dice
from everlora.streams.builtin.grammar import Writer, tidy
from everlora.streams.builtin.intent_words import INTENT_WORDS
from everlora.streams.builtin.message_words import REGISTER_WORDS, REPLY_WORDS
from everlora.streams.builtin.spec import Spec

_INTENT = ("billing", "cancellation", "change", "delivery", "fault", "login", "praise", "refund")


def _intent(dice: Dice, label: str) -> str:
    # One message is about one thing, however often it is named.
    item, plan = dice.pick(INTENT_WORDS["item"]), dice.pick(INTENT_WORDS["plan"])
    write = Writer(dice, INTENT_WORDS, item=item, plan=plan)
    parts = [write.one(label)]
    draw = dice.below(10)
    if draw < 4:
        parts.insert(0, write.one("before"))
    elif draw < 6:
        parts.insert(0, write.one("besides_" + dice.pick([name for name in _INTENT if name != label])))
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
    parts += [write.one("plain") for _ in range(dice.between(1, 2))]
    return tidy(" ".join(dice.shuffled(parts)))


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
