"""Cuts picture sets into tasks for class-incremental learning: every task brings classes that no other has.

The classes, in an order, are cut into tasks of equal size, as in the literature on LoRA for vision. Order 1 is the
order of the class numbers; order 1993 is the permutation that much of the class-incremental literature draws with
numpy's seed 1993, frozen in `RandomState`; its tasks have names of their own, as an order is known by its list. A
tenth of each class's training rows is set aside as dev. A benchmark's options may say ``most``: at most so many
training, and half as many test rows of each class.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast
from zipfile import BadZipFile

import numpy as np
from numpy.random import RandomState

from everlora.benchmarks import vision_hub
from everlora.benchmarks.pictures import DRAW_SEED, Pictures, PictureSet, arrays
from everlora.core.benchmark import Request, TaskInfo
from everlora.core.errors import DataError
from everlora.data.task import Example, Task, sample_rows


def class_incremental(request: Request, found: PictureSet) -> list[Task]:
    """Cut a picture set into the tasks of a request.

    Only rows that are used are decoded, so that ``request.train`` and ``request.evaluate`` bound the memory.

    Raises:
        DataError: the set has other classes than the benchmark is made of.
    """
    benchmark, order = request.benchmark, request.order
    count = len(found.classes)
    if count != benchmark.classes:
        raise DataError(
            f"{found.source} has {count} classes where {benchmark.name} wants {benchmark.classes}; check the data"
        )
    # NumPy's old generator, whose numbers are frozen: its new ones may change with a version, and orders with them.
    permutation = [int(k) for k in RandomState(order).permutation(count)] if order != 1 else list(range(count))
    names = benchmark.orders[order]
    size, rest = divmod(count, len(names))
    assert not rest
    made = []
    for task in request.tasks:
        k = names.index(task.name)
        classes = permutation[k * size : (k + 1) * size]
        made.append(_task(task, found, classes, request))
    return made


def _task(task: TaskInfo, found: PictureSet, classes: Sequence[int], request: Request) -> Task:
    most, evaluate = cast(int | None, request.benchmark.options.get("most")), request.evaluate
    learn, dev, left = _draw(found.train, classes, most, aside=True)
    test, _, left_test = _draw(found.test, classes, most and most // 2, aside=False)
    left_out = {"train: only so many of a class are taken": left, "test: only so many of a class are taken": left_test}
    return Task(
        name=task.name,
        train=_examples(found, found.train, _taken(found.train, learn, request.train, request.seed)),
        dev=_examples(found, found.train, _taken(found.train, dev, evaluate, request.seed)),
        test=_examples(found, found.test, _taken(found.test, test, evaluate, request.seed)),
        labels=tuple(found.classes[k] for k in classes),
        form="image",
        metric=task.metric,
        source=found.source,
        left_out={why: count for why, count in left_out.items() if count},
    )


def _draw(rows: Pictures, classes: Sequence[int], most: int | None, aside: bool) -> tuple[list[int], list[int], int]:
    """Return rows of the classes in a fixed random order, a tenth of each set aside, and how many exceed ``most``."""
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
        # From the front of the shuffled rows of each class, so that dev has every class in its share.
        cut = len(taken) // 10 if aside else 0
        others += taken[:cut]
        main += taken[cut:]
    dice.shuffle(main)
    dice.shuffle(others)
    return main, others, left


def _taken(rows: Pictures, indices: Sequence[int], most: int | None, seed: int) -> list[int]:
    """Return at most so many of the rows at ``indices``, in equal shares of each class, before any is decoded."""
    drawn = sample_rows(len(indices), len(indices) if most is None else most, seed, [rows.numbers[i] for i in indices])
    return [indices[k] for k in drawn]


def _examples(found: PictureSet, rows: Pictures, indices: Sequence[int]) -> list[Example]:
    return [Example(rows.picture(index), found.classes[rows.numbers[index]]) for index in indices]


DIGITS = tuple("0123456789")


def from_hub(request: Request) -> list[Task]:
    """Load a picture set that lies on the hub, where the benchmark's options say."""
    return class_incremental(request, vision_hub.from_hub(_place(request)))


def _place(request: Request) -> vision_hub.HubPictures:
    return vision_hub.HubPictures(**cast(Mapping[str, str], request.benchmark.options["hub"]))


def digits(request: Request) -> list[Task]:
    """Load scikit-learn's pictures of digits."""
    return class_incremental(request, _digits())


def _digits() -> PictureSet:
    """Return the 1,797 pictures of digits, 8 by 8 pixels, of scikit-learn; a fifth of each class is test."""
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


def mnist(request: Request) -> list[Task]:
    """Load MNIST from the data folder or, without one, from the hub.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    folder = request.data_dir
    found = vision_hub.from_hub(_place(request)) if folder is None else mnist_from_file(folder)
    return class_incremental(request, found)


def mnist_from_file(data_dir: Path) -> PictureSet:
    """Read MNIST from an ``.npz`` file with x_train, y_train, x_test, y_test.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    path = data_dir if data_dir.is_file() else next((data_dir / n for n in FILES if (data_dir / n).is_file()), None)
    if path is None:
        raise DataError(f"{data_dir} has no {' or '.join(FILES)}; give --data-dir the folder that holds it")
    try:
        # A file from elsewhere must not run code: arrays of objects are pickled.
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
