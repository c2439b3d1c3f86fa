"""Class-incremental splits of picture sets: every task brings classes that no other has.

The classes, in an order, are cut into tasks of equal size, as in the literature on LoRA for vision. Order 1 is the
order of the class numbers; order 1993 is the permutation that much of the class-incremental literature draws with
numpy's seed 1993, frozen in `RandomState`. A tenth of each class's training rows is set aside as dev.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from everlora.core.errors import DataError
from everlora.data.task import Example, Task, TaskStream

Picture = NDArray[np.uint8]
DRAW_SEED = 0


@dataclass(frozen=True)
class Pictures:
    """Rows of one split: a class number for each, and the picture of a row, decoded when it is asked for."""

    numbers: Sequence[int]
    picture: Callable[[int], Picture]


@dataclass(frozen=True)
class PictureSet:
    """A data set: names of its classes, its training rows, its test rows, where they are from."""

    classes: tuple[str, ...]
    train: Pictures
    test: Pictures
    source: str


@dataclass(frozen=True, kw_only=True)
class VisionBenchmark:
    """A picture set and how it is cut.

    Attributes:
        title: one line for people.
        tasks: number of tasks.
        classes: number of classes.
        load: opens the set; takes a data folder or None.
        permuted: whether order 1993 is offered.
        most: at most so many training, and half as many test rows of each class; None for all.
        local: whether a data folder can be given.
        embedded: whether the data come with a package.
    """

    title: str
    tasks: int
    classes: int
    load: Callable[[Path | None], PictureSet]
    permuted: bool = True
    most: int | None = None
    local: bool = False
    embedded: bool = False

    @property
    def orders(self) -> Mapping[int, tuple[str, ...]]:
        """Names of the tasks by order: other classes have other names, as an order is known by its list."""
        count = range(1, self.tasks + 1)
        permuted = {1993: tuple(f"permuted-{k:02d}" for k in count)} if self.permuted else {}
        return {1: tuple(f"split-{k:02d}" for k in count), **permuted}


def class_incremental(
    name: str,
    benchmark: VisionBenchmark,
    *,
    order: int = 1,
    tasks: Sequence[str] | None = None,
    data_dir: Path | None = None,
    train: int | None = None,
    evaluate: int | None = None,
) -> TaskStream:
    """Cut a picture set into tasks.

    Only rows that are used are decoded, so that ``train`` and ``evaluate`` (rows of each task) bound the memory.

    Raises:
        DataError: the set cannot be loaded, or has other classes than the benchmark is made of.
    """
    found = benchmark.load(data_dir)
    count = len(found.classes)
    if count != benchmark.classes:
        raise DataError(f"{found.source} has {count} classes where {name} wants {benchmark.classes}; check the data")
    permutation = [int(k) for k in RandomState(order).permutation(count)] if order != 1 else list(range(count))
    names = benchmark.orders[order]
    size, rest = divmod(count, benchmark.tasks)
    assert not rest
    made = {
        task: _task(task, found, permutation[k * size : (k + 1) * size], benchmark.most, train, evaluate)
        for k, task in enumerate(names)
        if tasks is None or task in tasks
    }
    notes = " ".join(f"{task.name}: {n} {why}." for task in made.values() for why, n in task.left_out.items())
    return TaskStream(name=name, tasks=tuple(made[task] for task in tasks or names), note=notes)


def _task(
    name: str, found: PictureSet, classes: Sequence[int], most: int | None, train: int | None, evaluate: int | None
) -> Task:
    learn, dev, left = _draw(found.train, classes, most, aside=True)
    test, _, left_test = _draw(found.test, classes, most and most // 2, aside=False)
    left_out = {"train: only so many of a class are taken": left, "test: only so many of a class are taken": left_test}
    return Task(
        name=name,
        train=_examples(found, found.train, learn[:train]),
        dev=_examples(found, found.train, dev[:evaluate]),
        test=_examples(found, found.test, test[:evaluate]),
        labels=tuple(found.classes[k] for k in classes),
        form="image",
        source=found.source,
        left_out={why: count for why, count in left_out.items() if count},
    )


def _draw(rows: Pictures, classes: Sequence[int], most: int | None, aside: bool) -> tuple[list[int], list[int], int]:
    """Rows of the classes in a fixed random order, a tenth of each set aside, and how many are beyond ``most``."""
    dice = random.Random(DRAW_SEED)
    of_class: dict[int, list[int]] = {number: [] for number in classes}
    for index, number in enumerate(rows.numbers):
        if number in of_class:
            of_class[number].append(index)
    main: list[int] = []
    others: list[int] = []
    left = 0
    for number in classes:
        found = of_class[number]
        dice.shuffle(found)
        taken = found[:most]
        left += len(found) - len(taken)
        cut = len(taken) // 10 if aside else 0
        others += taken[:cut]
        main += taken[cut:]
    dice.shuffle(main)
    dice.shuffle(others)
    return main, others, left


def _examples(found: PictureSet, rows: Pictures, indices: Sequence[int]) -> list[Example]:
    return [Example(rows.picture(index), found.classes[rows.numbers[index]]) for index in indices]


DIGITS = tuple("0123456789")


def arrays(images: Any, numbers: Any) -> Pictures:
    """Pictures that are in memory."""
    return Pictures([int(n) for n in numbers], lambda index: np.ascontiguousarray(images[index], dtype=np.uint8))


def digits(data_dir: Path | None) -> PictureSet:
    """The 1,797 pictures of digits, 8 by 8 pixels, that come with scikit-learn; a fifth of each class is test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    numbers = [int(n) for n in bunch.target]
    dice = random.Random(DRAW_SEED)
    test: set[int] = set()
    for number in range(10):
        of_class = [index for index, n in enumerate(numbers) if n == number]
        dice.shuffle(of_class)
        test.update(of_class[: len(of_class) // 5])
    here = [[k for k in range(len(numbers)) if (k in test) is side] for side in (False, True)]
    train, held = (arrays(images[rows], [numbers[k] for k in rows]) for rows in here)
    return PictureSet(DIGITS, train, held, "scikit-learn: load_digits")


FILES = ("mnist_t10k.npz", "mnist.npz")


def mnist(data_dir: Path | None) -> PictureSet:
    """MNIST from an ``.npz`` file with x_train, y_train, x_test, y_test, or from the hub.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    if data_dir is None:
        from everlora.benchmarks.vision_hub import mnist_from_hub

        return mnist_from_hub()
    path = data_dir if data_dir.is_file() else next((data_dir / n for n in FILES if (data_dir / n).is_file()), None)
    if path is None:
        raise DataError(f"{data_dir} has no {' or '.join(FILES)}; give --data-dir the folder that holds it")
    try:
        with np.load(path, allow_pickle=False) as held:
            found = {key: held[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except KeyError:
        raise DataError(f"{path} lacks an array; wanted x_train, y_train, x_test, y_test") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:  # a broken archive comes as any of them
        raise DataError(f"{path} is not a sound .npz file ({error}); copy it again") from None
    for split in ("train", "test"):
        x, y = found[f"x_{split}"], found[f"y_{split}"]
        if x.ndim != 3 or x.dtype != np.uint8 or len(x) != len(y) or not set(np.unique(y).tolist()) <= set(range(10)):
            raise DataError(f"{path}: x_{split} must hold grey pictures of bytes, and y_{split} a digit for each")
    pairs = [arrays(found[f"x_{split}"], found[f"y_{split}"]) for split in ("train", "test")]
    return PictureSet(DIGITS, pairs[0], pairs[1], str(path))
