"""Defines the task of whether a line follows a rule, as a clerk, or a form on a web page, checks all day."""

from __future__ import annotations

from collections.abc import Callable

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, lexicon, tidy
from everlora.benchmarks.synthetic.spec import Spec

_WORDS = lexicon(
    COMMON,
    item="apples|bread|candles|dates|eggs|flour|grapes|honey|ink|jam|lemons|milk|nails|onions|paint|rice|salt|tea|"
    "vinegar|wool",
    job="sweep the yard|water the plants|check the boiler|call the printer|open the shutters|count the till|"
    "refill the shelves|"
    "order more paper|clean the windows|sort the post",
    note="""{first} will {job} on {day}|the parcel for {person} is in {city}|please {job} before {day}|
        we are out of {item} and {item}|{person} asked us to {job}|deliver {small} boxes of {item} to {city}|
        nobody had time to {job}|{first} paid for the {item} on {day}""",
    greeting="Dear {first},|Good morning, {first},|Hello {first},|Dear {person},",
    thanks="Thank you, {first}.|With thanks, {first}.|Many thanks, {first} {last}.",
)
_MONTHS = COMMON["month"]

Rule = Callable[[Writer, bool], str]


def _ends_with_question(write: Writer, kept: bool) -> str:
    asked = write.fill(
        write.dice.pick(("Did {first} {job} on {day}", "Can {person} {job}", "Is the {item} from {city}"))
    )
    return asked + ("?" if kept else write.dice.pick((".", "!", "")))


def _ends_with_stop(write: Writer, kept: bool) -> str:
    return tidy(write.one("note")) + ("." if kept else write.dice.pick(("", "!", ",")))


def _starts_with_capital(write: Writer, kept: bool) -> str:
    note = write.one("note")
    return (tidy(note) if kept else note[0].lower() + note[1:]) + "."


def _all_capitals(write: Writer, kept: bool) -> str:
    note = write.one("note")
    if kept:
        return note.upper() + "."
    words = note.split()
    calm = write.dice.below(len(words))
    return " ".join(w.lower() if i >= calm else w.upper() for i, w in enumerate(words)) + "."


def _names_weekday(write: Writer, kept: bool) -> str:
    when = write.one("day") if kept else write.fill("{ordinal} of {month}")
    before = "on " if kept else "on the "
    return tidy(write.fill("{first} will {job} in {city} ")) + before + when + "."


def _starts_with_greeting(write: Writer, kept: bool) -> str:
    note = write.fill("please {job}") + "."
    if kept:
        return write.one("greeting") + " " + note
    return tidy(note) + " " + write.fill(write.dice.pick(("Thank you, {first}.", "Ask {first} for the {item}.")))


def _thanks(write: Writer, kept: bool) -> str:
    note = tidy(write.one("note")) + ". "
    return note + (write.one("thanks") if kept else write.fill(write.dice.pick(("Yours, {first}.", "{person}."))))


def _three_items(write: Writer, kept: bool) -> str:
    items = [write.one("item") for _ in range(3 if kept else write.dice.pick((2, 4, 5)))]
    return "Buy " + ", ".join(items) + "."


def _alphabetical(write: Writer, kept: bool) -> str:
    items = sorted({write.one("item") for _ in range(4)})
    if not kept:
        items = items[::-1] if write.dice.chance(0.5) else items[1:] + items[:1]
    return "Stock: " + ", ".join(items) + "."


def _pounds(write: Writer, kept: bool) -> str:
    amount = write.one("tens")
    money = f"{amount} pounds" if kept else f"{amount} {write.dice.pick(('euros', 'dollars', 'kronor', 'boxes'))}"
    return write.fill("{person} owes us {money} for the {item}.", money=money)


def _date(write: Writer, kept: bool) -> str:
    day, month, year = str(write.dice.between(1, 28)), write.one("month"), str(write.dice.between(2001, 2029))
    wrong = (f"{month} {day}, {year}", f"{year} {month} {day}", f"{day}.{_MONTHS.index(month) + 1}.{year}")
    return write.fill(
        "Lease of {person}, {city}, signed {date}.", date=f"{day} {month} {year}" if kept else write.dice.pick(wrong)
    )


def _one_city(write: Writer, kept: bool) -> str:
    route = "from {city}, room {tens}" if kept else "from {city}, later {city}"
    return write.fill("{first} {last} " + route + ", asked for {item}.")


_RULES: tuple[tuple[str, Rule], ...] = (
    ("the line must end with a question mark", _ends_with_question),
    ("a note must end with a full stop", _ends_with_stop),
    ("the line must begin with a capital letter", _starts_with_capital),
    ("write the whole line in capital letters", _all_capitals),
    ("the line must name a day of the week", _names_weekday),
    ("begin with a greeting", _starts_with_greeting),
    ("end with thanks", _thanks),
    ("list exactly three things", _three_items),
    ("list things in alphabetical order", _alphabetical),
    ("give the amount in pounds", _pounds),
    ("write dates as day, month, year, with the month as a word", _date),
    ("name only one city in each line", _one_city),
)


def _rule(dice: Dice, label: str) -> str:
    wording, make = dice.pick(_RULES)
    start = dice.pick(("Rule", "House rule", "Our rule"))
    return f"{start}: {wording}. Line: {make(Writer(dice, _WORDS), label == 'yes')}"


RULE = Spec(name="rule", labels=("no", "yes"), instruction="Does the line follow the rule?", draw=_rule)
