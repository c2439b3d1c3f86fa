"""Defines what the loaders of picture benchmarks share: a picture set and its splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
DRAW_SEED = 0
"""Which rows are set aside is drawn once, with a seed of its own, so that every run sees the same rows."""


@dataclass(frozen=True)
class Pictures:
    """Holds the rows of one split: a class number for each, and its picture, decoded when it is needed."""

    numbers: Sequence[int]
    picture: Callable[[int], Picture]


@dataclass(frozen=True)
class PictureSet:
    """Holds a data set: names of its classes, its training rows, its test rows, and where they are from."""

    classes: tuple[str, ...]
    train: Pictures
    test: Pictures
    source: str


def arrays(images: Any, numbers: Any) -> Pictures:
    """Make a split of pictures that are in memory."""
    return Pictures([int(n) for n in numbers], lambda index: np.ascontiguousarray(images[index], dtype=np.uint8))
