"""Generates streams that need no download: classification tasks with text, or pictures.

The tasks share some of their labels (``yes`` answers three different questions, ``sports`` names the topic of news and
of forum posts), so that learning one really disturbs another. The data depend on ``seed`` and on nothing else; the
test rows do not change with the number of training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from everlora.benchmarks.synthetic.images import IMAGES
from everlora.benchmarks.synthetic.messages import INTENT, REGISTER, REPLY
from everlora.benchmarks.synthetic.opinion import OUTLOOK, REVIEWS
from everlora.benchmarks.synthetic.pairs import ENTAILMENT, ORDER
from everlora.benchmarks.synthetic.questions import QUESTIONS
from everlora.benchmarks.synthetic.rules import RULE
from everlora.benchmarks.synthetic.spec import Spec
from everlora.benchmarks.synthetic.topics import FORUM, NEWS
from everlora.core.benchmark import Request
from everlora.core.errors import DataError, nearest
from everlora.data.stream import TaskStream
from everlora.data.task import Task

__all__ = ["IMAGE_TASKS", "TASKS", "Spec", "builtin", "builtin_images", "load"]
EVALUATED = 50
"""Rows of dev and test, unless more are wanted: answering costs more than learning on a small machine."""
TRAINED = {"text": 1000, "image": 600}


def _mapping(*specs: Spec) -> Mapping[str, Spec]:
    return MappingProxyType({spec.name: spec for spec in specs})


TASKS: Mapping[str, Spec] = _mapping(
    REVIEWS, NEWS, REPLY, QUESTIONS, OUTLOOK, FORUM, RULE, INTENT, ENTAILMENT, REGISTER, ORDER
)
"""The text tasks, in the order of the stream."""

IMAGE_TASKS: Mapping[str, Spec] = _mapping(*IMAGES)
"""The picture tasks, in the order of the stream."""


def load(request: Request) -> list[Task]:
    """Generate the tasks of a request, with as many rows as it wants."""
    known, rows = {**TASKS, **IMAGE_TASKS}, request.evaluate or EVALUATED
    return [
        known[task.name].task(seed=request.seed, train=request.train or TRAINED[task.modality], dev=rows, test=rows)
        for task in request.tasks
    ]


def builtin(
    *, seed: int = 0, train: int = 1000, dev: int = 200, test: int = 200, tasks: Sequence[str] | None = None
) -> TaskStream:
    """Generate the stream of text tasks.

    Args:
        seed: seed of the data; another seed gives other texts of the same tasks.
        train: number of training rows of each task.
        dev: number of dev rows of each task; may be 0.
        test: number of test rows of each task.
        tasks: names from `TASKS`, in the order wanted; all of them if None.
    """
    return _stream("builtin", TASKS, tasks, seed=seed, train=train, dev=dev, test=test)


def builtin_images(
    *, seed: int = 0, train: int = 600, dev: int = 120, test: int = 120, tasks: Sequence[str] | None = None
) -> TaskStream:
    """Generate the stream of picture tasks (32 by 32 pixels, three colours); arguments as in `builtin`."""
    return _stream("builtin_images", IMAGE_TASKS, tasks, seed=seed, train=train, dev=dev, test=test)


def _stream(
    name: str, known: Mapping[str, Spec], tasks: Sequence[str] | None, *, seed: int, train: int, dev: int, test: int
) -> TaskStream:
    if isinstance(tasks, str):
        raise DataError(f"stream {name!r} takes a list of task names, not one string; write [{tasks!r}]")
    for split, count, least in (("train", train, 1), ("dev", dev, 0), ("test", test, 1)):
        if count < least:
            raise DataError(f"stream {name!r} was asked for {count} {split} rows; give at least {least}")
    chosen = tuple(known) if tasks is None else tuple(tasks)
    for task in chosen:
        if task not in known:
            raise DataError(f"stream {name!r} has no task {task!r}{nearest(task, known)}")
    made = tuple(known[task].task(seed=seed, train=train, dev=dev, test=test) for task in chosen)
    return TaskStream(name=name, tasks=made, note=f"generated offline, data seed {seed}")
