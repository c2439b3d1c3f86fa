"""Draws picture tasks: every task brings labels that no other has, as in class-incremental learning.

`RandomState` is used because its numbers are frozen for good, which those of numpy's newer generators are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.spec import Spec

SIZE = 32
_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)

Mask = NDArray[np.float64]
Picture = NDArray[np.uint8]


def _paint(chance: RandomState, mask: Mask) -> Picture:
    """Colour ``mask`` (0 to 1) in front of a background, light on dark or dark on light, and add noise."""
    back = chance.uniform(0, 255, size=3)
    front = chance.uniform(0, 255, size=3)
    # Until they differ enough to be seen below the noise.
    while abs(front.mean() - back.mean()) < 60:
        front, back = chance.uniform(0, 255, size=3), chance.uniform(0, 255, size=3)
    slope = (_ROWS * chance.uniform(-1, 1) + _COLUMNS * chance.uniform(-1, 1))[..., None]
    picture = back + (front - back) * mask[..., None] + slope
    picture = picture + chance.normal(0, chance.uniform(5, 22), size=picture.shape)
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)


def _disc(row: float, column: float, radius: float) -> Mask:
    return np.asarray((((_ROWS - row) ** 2 + (_COLUMNS - column) ** 2) <= radius**2), dtype=np.float64)


def _shape(chance: RandomState, label: str) -> Mask:
    radius = chance.uniform(6, 11)
    row, column = chance.uniform(radius, SIZE - radius, size=2)
    down, right = _ROWS - row, _COLUMNS - column
    if label == "circle":
        return _disc(row, column, radius)
    if label == "square":
        side = radius * 0.88
        return np.asarray(((abs(down) <= side) & (abs(right) <= side)), dtype=np.float64)
    return np.asarray(((down <= radius * 0.8) & (abs(right) * 1.7 <= down + radius * 1.1)), dtype=np.float64)


def _stripes(chance: RandomState, label: str) -> Mask:
    turn = {"horizontal": 0.0, "diagonal": np.pi / 4, "vertical": np.pi / 2}[label] + chance.uniform(-0.2, 0.2)
    along = _ROWS * np.cos(turn) + _COLUMNS * np.sin(turn)
    wave = np.sin(2 * np.pi * along / chance.uniform(5, 11) + chance.uniform(0, 2 * np.pi))
    return np.asarray((wave > chance.uniform(-0.3, 0.3)), dtype=np.float64)


def _count(chance: RandomState, label: str) -> Mask:
    wanted = {"one": 1, "two": 2, "three": 3}[label]
    mask = np.zeros((SIZE, SIZE))
    placed: list[tuple[float, float, float]] = []
    while len(placed) < wanted:
        radius = chance.uniform(2.5, 5.0)
        row, column = chance.uniform(radius + 1, SIZE - radius - 1, size=2)
        if all((row - r) ** 2 + (column - c) ** 2 > (radius + other + 2.5) ** 2 for r, c, other in placed):
            placed.append((row, column, radius))
            mask = np.maximum(mask, _disc(row, column, radius))
    return mask


def _texture(chance: RandomState, label: str) -> Mask:
    step = chance.uniform(4, 8)
    down = (_ROWS + chance.uniform(0, step)) / step
    right = (_COLUMNS + chance.uniform(0, step)) / step
    if label == "checked":
        return np.asarray((np.floor(down) + np.floor(right)) % 2)
    if label == "dotted":
        return np.asarray((((down % 1 - 0.5) ** 2 + (right % 1 - 0.5) ** 2) < 0.09), dtype=np.float64)
    coarse = chance.uniform(0, 1, size=(SIZE // 4 + 1, SIZE // 4 + 1))
    return np.asarray(np.kron(coarse, np.ones((4, 4)))[:SIZE, :SIZE])


def _symbol(chance: RandomState, label: str) -> Mask:
    radius, thick = chance.uniform(7, 12), chance.uniform(1.3, 2.4)
    row, column = chance.uniform(radius, SIZE - radius, size=2)
    down, right = _ROWS - row, _COLUMNS - column
    if label == "ring":
        return np.asarray((abs(np.hypot(down, right) - radius * 0.8) <= thick), dtype=np.float64)
    if label == "cross":
        down, right = (down + right) / np.sqrt(2), (down - right) / np.sqrt(2)
    bars = (np.minimum(abs(down), abs(right)) <= thick) & (np.maximum(abs(down), abs(right)) <= radius)
    return np.asarray(bars, dtype=np.float64)


_DRAW = {"shapes": _shape, "stripes": _stripes, "counts": _count, "textures": _texture, "symbols": _symbol}


def _spec(name: str, *labels: str) -> Spec:
    def draw(dice: Dice, label: str) -> Any:
        chance = RandomState(dice.below(2**32))
        return _paint(chance, _DRAW[name](chance, label))

    return Spec(name=name, labels=labels, instruction="", draw=draw, form="image")


IMAGES = (
    _spec("shapes", "circle", "square", "triangle"),
    _spec("stripes", "horizontal", "vertical", "diagonal"),
    _spec("counts", "one", "two", "three"),
    _spec("textures", "checked", "dotted", "patchy"),
    _spec("symbols", "plus", "cross", "ring"),
)
