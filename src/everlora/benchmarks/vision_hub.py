"""Loads picture sets from the Hugging Face hub.

Pictures are decoded row by row, only those that are used, and those larger than `SIDE` are made smaller on the way: a
ViT takes 224 by 224 pixels, and ImageNet-R as it is would not fit in memory.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

from everlora.benchmarks.pictures import DRAW_SEED, Picture, Pictures, PictureSet
from everlora.core.errors import DataError
from everlora.data.hub import load_split
from everlora.data.images import to_array

SIDE = 256
INSTEAD = "vision-digits needs no download"


@dataclass(frozen=True, kw_only=True)
class HubPictures:
    """Says where a picture set lies on the hub; ``hub`` among the options in the YAML.

    Attributes:
        path: id of the data set.
        image: the column of the picture.
        label: the column of the class: numbers with names (`datasets.ClassLabel`), or names.
        train: the training split.
        test: the test split; None if there is none, and a fifth of each class is drawn once.
    """

    path: str
    image: str = "image"
    label: str = "label"
    train: str = "train"
    test: str | None = "test"


def from_hub(place: HubPictures) -> PictureSet:
    """Load a picture set.

    Raises:
        DataError: the hub cannot be reached, or the data set has other columns.
    """
    train = load_split(place.path, None, place.train, instead=INSTEAD)
    test = load_split(place.path, None, place.test, instead=INSTEAD) if place.test else None
    return picture_set(place, train, test)


def picture_set(place: HubPictures, train: Any, test: Any | None) -> PictureSet:
    """Make a picture set of the `datasets.Dataset` that the hub has of it; ``test`` is drawn from train if None.

    Raises:
        DataError: a column is missing, or test has a class that train lacks.
    """
    for data in (train, test) if test is not None else (train,):
        for column in (place.image, place.label):
            if column not in data.column_names:
                raise DataError(f"{place.path} has no column {column!r} (found: {', '.join(data.column_names)})")
    names = getattr(train.features[place.label], "names", None) or sorted({str(v) for v in train[place.label]})
    classes = tuple(str(name) for name in names)
    rows = _numbers(train, place, classes)
    source = f"hub:{place.path}"
    if test is not None:
        held = Pictures(_numbers(test, place, classes), partial(_picture, test, place, "test"))
        return PictureSet(classes, Pictures(rows, partial(_picture, train, place, "train")), held, source)
    dice, order = random.Random(DRAW_SEED), list(range(len(rows)))
    dice.shuffle(order)
    seen: dict[int, int] = {}
    share = {number: rows.count(number) // 5 for number in set(rows)}
    chosen = set()
    for index in order:
        seen[rows[index]] = seen.get(rows[index], 0) + 1
        if seen[rows[index]] <= share[rows[index]]:
            chosen.add(index)
    sides = [[k for k in range(len(rows)) if (k in chosen) is side] for side in (False, True)]
    train_rows, test_rows = (_part(train, place, rows, side) for side in sides)
    return PictureSet(classes, train_rows, test_rows, source)


def _part(data: Any, place: HubPictures, numbers: list[int], indices: list[int]) -> Pictures:
    return Pictures([numbers[k] for k in indices], lambda k: _picture(data, place, place.train, indices[k]))


def _numbers(data: Any, place: HubPictures, classes: tuple[str, ...]) -> list[int]:
    values = list(data[place.label])
    if all(isinstance(value, int) for value in values):
        return values
    number = {name: k for k, name in enumerate(classes)}
    for row, value in enumerate(values, start=1):
        if str(value) not in number:
            raise DataError(f"{place.path}, row {row}: the class {value!r} is not one of train's")
    return [number[str(value)] for value in values]


def _picture(data: Any, place: HubPictures, split: str, index: int) -> Picture:
    at = f"{place.path} {split}, row {index + 1}"
    try:
        picture = data[index][place.image]
    except (OSError, ValueError) as error:  # `datasets` decodes here
        raise DataError(f"{at}: the image cannot be read ({error})") from None
    if hasattr(picture, "thumbnail") and min(picture.size) > SIDE:
        scale = SIDE / min(picture.size)
        picture = picture.convert("RGB").resize([round(side * scale) for side in picture.size])
    return to_array(picture, at)
