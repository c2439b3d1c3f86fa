"""Holds scenes for entailment and steps for the order task. A step's past tense is also its participle."""

from __future__ import annotations

from typing import NamedTuple

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon


class Deed(NamedTuple):
    """Holds an action, a looser description that follows from it, and one that cannot be true at the same time."""

    exact: str
    loose: str
    opposite: str


class Who(NamedTuple):
    """Holds somebody as first mentioned, as mentioned again, and in a more general description."""

    new: str
    again: str
    general: str


class Scene(NamedTuple):
    """Holds people, actions and places that go together."""

    who: tuple[Who, ...]
    deeds: tuple[Deed, ...]
    places: tuple[str, ...]


class Step(NamedTuple):
    """Holds one thing that somebody does: base form, past tense, -ing form."""

    base: str
    past: str
    ing: str


SCENES = (
    Scene(
        (
            Who("a young nurse", "the nurse", "a person"),
            Who("an old fisherman", "the fisherman", "a man"),
            Who("the queen's sister", "the sister of the queen", "a woman"),
            Who("a tired student", "the student", "somebody"),
            Who("a tall waiter", "the waiter", "a person"),
            Who("my grandmother", "my grandmother", "a woman"),
            Who("the boy in the red coat", "the boy", "a child"),
        ),
        (
            Deed("sleeping", "resting", "wide awake"),
            Deed("eating an apple", "eating fruit", "eating nothing"),
            Deed("reading a long novel", "reading a book", "unable to read"),
            Deed("singing a loud song", "making a noise", "completely silent"),
            Deed("drinking hot tea", "having a drink", "refusing every drink"),
            Deed("sitting on a bench", "sitting", "standing up"),
            Deed("writing a letter", "writing something", "writing nothing at all"),
        ),
        (
            "in the park",
            "at the harbour",
            "on the night train",
            "in the waiting room",
            "at the kitchen table",
            "on the roof",
        ),
    ),
    Scene(
        (
            Who("a baker", "the baker", "a worker"),
            Who("the carpenter's son", "the son of the carpenter", "somebody"),
            Who("a retired painter", "the painter", "an artist"),
            Who("the youngest gardener", "the gardener", "a gardener"),
            Who("a mechanic from the village", "the mechanic", "a mechanic"),
            Who("an actress", "the actress", "a woman"),
        ),
        (
            Deed("carrying a heavy box", "carrying a box", "carrying an empty bag and nothing else"),
            Deed("repairing a bicycle", "fixing something", "standing idle"),
            Deed("selling fresh bread", "selling food", "giving bread away for free"),
            Deed("painting a fence white", "painting a fence", "painting the fence black"),
            Deed("planting an oak", "planting a tree", "cutting down a tree"),
            Deed("washing a dirty van", "cleaning a vehicle", "driving a clean van"),
            Deed("opening a parcel", "opening something", "leaving every parcel closed"),
        ),
        (
            "near the station",
            "behind the church",
            "in the market square",
            "at the school",
            "by the river",
            "next to the mill",
        ),
    ),
    Scene(
        (
            Who("a small brown dog", "the dog", "an animal"),
            Who("the farmer's horse", "the horse", "an animal"),
            Who("a grey cat", "the cat", "a cat"),
            Who("a girl with long hair", "the girl", "a child"),
            Who("a runner in a blue shirt", "the runner", "an athlete"),
            Who("a lost goat", "the goat", "a goat"),
        ),
        (
            Deed("running fast", "moving", "standing still"),
            Deed("lying in the sun", "lying in the light", "lying in the dark"),
            Deed("jumping over a wall", "jumping", "crawling under a wall"),
            Deed("waiting quietly", "waiting", "making a lot of noise"),
            Deed("chasing a ball", "chasing something", "fast asleep"),
            Deed("drinking from a bucket", "drinking", "refusing to drink"),
        ),
        (
            "behind the barn",
            "on the beach",
            "in the snow",
            "near the old bridge",
            "beside the road",
            "at the edge of the wood",
        ),
    ),
)

_STEPS = """lock the shop/locked/locking|call the bank/called/calling|paint the door/painted/painting|
    feed the hens/fed/feeding|wash the car/washed/washing|post the letter/posted/posting|cook the rice/cooked/cooking|
    pay the rent/paid/paying|water the roses/watered/watering|visit the dentist/visited/visiting|
        sell the boat/sold/selling|
    meet the teacher/met/meeting|clean the oven/cleaned/cleaning|repair the fence/repaired/repairing|
    buy the tickets/bought/buying|count the money/counted/counting|read the contract/read/reading|
    pack the suitcase/packed/packing|return the library books/returned/returning|book the hotel/booked/booking|
    find the key/found/finding|close the windows/closed/closing|order the cake/ordered/ordering|
    finish the report/finished/finishing|iron the shirts/ironed/ironing|answer the email/answered/answering|
    light the stove/lit/lighting|walk the dog/walked/walking|fix the lamp/fixed/fixing|sign the form/signed/signing"""


def _step(text: str) -> Step:
    base, past, ing = text.strip().split("/")
    rest = base.partition(" ")[2]
    return Step(base, f"{past} {rest}", f"{ing} {rest}")


STEPS = tuple(_step(text) for text in _STEPS.split("|"))

PAIR_WORDS = lexicon(
    COMMON,
    he_name="Tomas|Oliver|Lucas|Yusuf|Mateo|Daniel|Patrick|Kofi|Marcus|Henrik|Rafael|Samuel|Joseph|Omar|Simon|Felix|"
    "Tariq",
    she_name="Maya|Priya|Amara|Ingrid|Chloe|Hana|Leila|Sofia|Elena|Grace|Mei|Clara|Ruth|Beatriz|Aisha|Nina|Julia|"
    "Irene",
    extra=", while {small} people watched|, as it began to rain|, and {small} bells rang|, just before noon|"
    ", not far from {city}|"
    ", as {first} passed by",
    reason="because of a promise|to win a bet|in order to please {first}|for the {ordinal} time that week|"
    "instead of going to {city}|"
    "for more than {small} hours|to forget a quarrel",
    mood="happy that day|well known in {city}|born in {city}|in love with {first}|older than {first}|"
    "a friend of {first}|"
    "ill the next day",
    mate="{first}|the mayor of {city}|{first} and {first}|a friend from {city}",
    companion="a cousin of {first}|{first}'s family in mind|{small} pounds in a pocket|a letter from {city} at hand",
    scenery="It was a rainy {day} in {city}.|{first} had offered to help.|Nobody else was there.|"
    "{name} had slept badly.|The whole day took {small} hours longer than planned.",
)
