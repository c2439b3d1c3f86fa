"""Defines two tasks that need two sentences read together: entailment, and which of two things came first."""

from __future__ import annotations

from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, tidy
from everlora.benchmarks.synthetic.pair_words import PAIR_WORDS, SCENES, STEPS
from everlora.benchmarks.synthetic.spec import Spec

_ENTAILMENT = ("contradiction", "entailment", "neutral")


def _entailment(dice: Dice, label: str) -> str:
    write = Writer(dice, PAIR_WORDS)
    scene = dice.pick(SCENES)
    who, deed = dice.pick(scene.who), dice.pick(scene.deeds)
    place, other_place = dice.several(scene.places, 2)
    day, other_day = dice.several(PAIR_WORDS["day"], 2)
    premise = write.fill(
        dice.pick(_PREMISES),
        who=who.new,
        deed=f"was {deed.exact}",
        place=place,
        day=day,
        extra=write.one("extra") if dice.chance(0.4) else "",
    )
    said, not_said = dice.pick((deed.exact, deed.loose)), deed.opposite
    # 'A person was awake' does not contradict 'the nurse slept': only the same somebody can be contradicted.
    person = who.again if label == "contradiction" or dice.chance(0.6) else who.general
    claims: tuple[str, ...] = {"contradiction": _CLAIMS, "entailment": _CLAIMS, "neutral": _UNKNOWN}[label]
    if label == "contradiction" and dice.chance(0.4):
        claims = _WHERE_AND_WHEN
        place, day = (other_place, day) if dice.chance(0.5) else (place, other_day)
    elif label == "contradiction":
        said, not_said = not_said, said
    claim = write.fill(dice.pick(claims), who=person, said=said, not_said=not_said, place=place, day=day)
    return f"{tidy(premise)} Claim: {claim}."


_PREMISES = (
    "{who} {deed} {place} on {day}{extra}.",
    "on {day} {who} {deed} {place}{extra}.",
    "last {day}, {place}, {who} {deed}{extra}.",
)
_WHERE_AND_WHEN = (
    "{who} was {said} {place} that time, and it was {day}",
    "it was {place} that {who} was {said} on {day}",
)
_CLAIMS = (
    "{who} was {said}",
    "{who} was {said} {place}",
    "on {day} {who} was {said}",
    "{who} was not {not_said}",
    "it is not true that {who} was {not_said} on {day}",
    *_WHERE_AND_WHEN,
)
_UNKNOWN = (
    "{who} was {said} {reason}",
    "{who} was {said} {place} {reason}",
    "on {day} {who} was {said} {reason}",
    "{who} was not {mood}",
    "{who} was {mood}",
    "{who} was {said} with {companion}",
    "it was {place} that {who} first met {mate}",
)


def _order(dice: Dice, label: str) -> str:
    he = dice.pick(("he", "she"))
    write = Writer(dice, PAIR_WORDS, he=he, name=dice.pick(PAIR_WORDS[f"{he}_name"]))
    first, second = dice.several(STEPS, 2)
    early = dice.between(7, 11)
    fixed = {
        "a": first.past,
        "b": second.past,
        "a_ing": first.ing,
        "b_ing": second.ing,
        "am": f"{early}:{dice.pick(('05', '15', '20', '40', '50'))}",
        "pm": f"{early + dice.between(1, 3)}:{dice.pick(('00', '10', '25', '35', '55'))}",
    }
    story = write.fill(dice.pick(_STORIES), **fixed)
    if dice.chance(0.35):
        story = f"{story} {write.one('scenery')}"
    one, two = (first, second) if label == "yes" else (second, first)
    return tidy(f"{story} Did {he} {one.base} before {he} {two.past}?")


# In every story a comes before b, in whatever order the two are told.
_STORIES = (
    "{name} {a}, then {b}.",
    "Before {he} {b}, {name} {a}.",
    "After {name} {a}, {he} {b}.",
    "{name} {b} after {a_ing}.",
    "{name} {a} before {b_ing}.",
    "{name} {b}, but only once {he} had {a}.",
    "First {name} {a}. An hour later {he} {b}.",
    "{name} {b}. The evening before, {he} {a}.",
    "At {am} {name} {a}, and at {pm} {he} {b}.",
    "At {pm} {name} {b}; at {am} {he} {a}.",
    "Having {a}, {name} {b}.",
    "On the morning after {he} {a}, {name} {b}.",
    "{name} {b} as {he} had promised, and {he} had already {a} by then.",
)

ENTAILMENT = Spec(
    name="entailment",
    labels=_ENTAILMENT,
    instruction="Does the text entail the claim, contradict it, or neither (neutral)?",
    draw=_entailment,
)
ORDER = Spec(
    name="order", labels=("no", "yes"), instruction="Answer the question about the order of events.", draw=_order
)
