"""Checks that the splits of a task are splits: no text stands in two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from everlora.core.errors import DataError
from everlora.data.rows import Table
from everlora.data.task import Example, Form

Overlap = Literal["error", "drop"]
AnyOverlap = Overlap | Literal["allow"]
"""``allow``: the splits are one file."""


def normalised(example: Example, form: Form, closed: bool) -> str:
    """Return what makes a row the same as another: the text without case and spacing, with the answer if it is free.

    One text with two answers is a leak when the answer is a label, and an ordinary thing when it is free text.
    """
    raw = example.input if isinstance(example.input, str) else json.dumps(example.input, sort_keys=True)
    return " ".join((raw if closed else f"{raw} {example.target}").split()).casefold()


def separate(
    name: str,
    tables: Mapping[str, Table],
    read: dict[str, list[Example]],
    form: Form,
    closed: bool,
    overlap: AnyOverlap,
) -> dict[str, int]:
    """Refuse rows whose text stands in two splits, or drop them from ``read``; pictures are not compared.

    What test has leaves train and dev, and what train has leaves dev.

    Returns:
        How many rows were dropped, by split and reason.

    Raises:
        DataError: a text stands in two splits and ``overlap`` is "error".
    """
    if form == "image" or overlap == "allow":
        return {}
    # By text and not by row: a copy in other case or spacing is known by heart all the same.
    keys = {split: [normalised(example, form, closed) for example in rows] for split, rows in read.items()}
    keys["dev"] = keys.get("dev", [])
    if keys["dev"] and overlap == "error" and set(keys["dev"]) == set(keys["test"]):
        raise DataError(
            f"task {name!r}: the same text in dev and test, in every row: {tables['dev'].where} and "
            f"{tables['test'].where}; leave dev out, or set overlap: drop"
        )
    stay = {split: list(range(len(found))) for split, found in keys.items()}
    dropped: dict[str, int] = {}
    # Test stays whole: its rows are what others have been measured on.
    for split, other in (("train", "test"), ("dev", "test"), ("dev", "train")):
        held = {keys[other][index]: index for index in reversed(stay[other])}
        twins = [index for index in stay[split] if keys[split][index] in held]
        if twins and overlap == "error":
            here, there = tables[split].at(twins[0]), tables[other].at(held[keys[split][twins[0]]])
            raise DataError(
                f"task {name!r}: the same text in {split} and {other}: {here} and {there}; remove one, or set "
                "overlap: drop"
            )
        if split == "train" and len(twins) == len(stay[split]):
            where = f"{tables[split].where} stands in {tables[other].where}"
            raise DataError(f"task {name!r}: every row of {where} too, so nothing is left to learn; mend the splits")
        if twins:
            dropped[f"{split}: {other} has the same text"] = len(twins)
            stay[split] = [index for index in stay[split] if keys[split][index] not in held]
    for split in {key.partition(":")[0] for key in dropped}:
        read[split] = [read[split][index] for index in stay[split]]
    return dropped
