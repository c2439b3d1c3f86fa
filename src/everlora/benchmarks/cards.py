"""Makes the card of a benchmark: what is known of its tasks, and what their rows are like where they are at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.benchmarks.streams import benchmarks, find_benchmark, is_own, open_stream
from everlora.core.benchmark import Benchmark
from everlora.data.folders import plain_spelling
from everlora.data.own import task_folders
from everlora.data.rows import is_folder
from everlora.data.stream import hash_of_list
from everlora.data.task import Example, Task
from everlora.metrics.registry import answer_metric

WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\s\u3040-\u30ff\u4e00-\u9fff]+")
"""Chinese and Japanese have no spaces between words: each of their characters counts as one."""
SHARES = (0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Lengths:
    """Holds lengths of texts in words: mean, median, 95th percentile and maximum."""

    mean: float
    p50: int
    p95: int
    max: int


@dataclass(frozen=True)
class SplitSizes:
    """Holds the number of rows of each split."""

    train: int
    dev: int
    test: int


@dataclass(frozen=True)
class PublishedSizes:
    """Holds numbers of rows as published; None where nobody has counted them."""

    train: int | None
    test: int | None


@dataclass(frozen=True)
class TaskRows:
    """Holds what the rows of a task are like, where they are at hand.

    Attributes:
        rows: how many there are.
        digest: their hash.
        left_out: how many rows of the source are not used, by reason.
        pictures: sizes of images; None for texts.
        words, answer_words: of training texts and targets; None for images.
    """

    rows: SplitSizes
    digest: str
    left_out: Mapping[str, int]
    pictures: str | None = None
    words: Lengths | None = None
    answer_words: Lengths | None = None


@dataclass(frozen=True)
class TaskCard:
    """Holds what there is to know about a task of a benchmark.

    Attributes:
        name, labels, metric, source: see `everlora.core.benchmark.TaskInfo`.
        licence: on what terms.
        published: sizes as published, if they are known.
        classes: number of its classes, where the benchmark shares its classes out evenly.
        at_hand: what its rows are like; None where they are not at hand.
    """

    name: str
    labels: tuple[str, ...]
    metric: str
    source: str
    licence: str
    published: PublishedSizes | None = None
    classes: int | None = None
    at_hand: TaskRows | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkCard:
    """Holds what there is to know about a benchmark, or about tasks of a user's own.

    Attributes:
        name, title, orders, aliases, modality, needs_data, prompt_limit: see `everlora.core.benchmark.Benchmark`.
        own: whether the tasks are a user's own.
        hashes: of the lists of tasks, by number of the order.
        order_digest: hash of the rows of the order that is shown; None where they are not at hand.
        note: what was done to the data.
        tasks: those of the order that is shown.
    """

    name: str
    title: str
    own: bool
    orders: Mapping[int, tuple[str, ...]]
    hashes: Mapping[int, str]
    aliases: Mapping[str, int]
    modality: tuple[str, ...]
    needs_data: bool
    prompt_limit: int | None
    order_digest: str | None
    note: str
    tasks: tuple[TaskCard, ...]


def card(name: str, *, data_dir: Path | None = None, order: int | str | None = None) -> BenchmarkCard:
    """Return what there is to know about a benchmark.

    Sizes, digests and lengths are those of the rows at hand: in ``data_dir``, or made on the spot. Nothing is fetched.

    Args:
        name: of a benchmark, or the path of a YAML file or folder of your own.
        data_dir: where a benchmark's rows are.
        order: which order's tasks are shown, and rows counted.

    Raises:
        ConfigError: there is no such benchmark or order, or it names a task or metric that there is not.
        DataError: the data cannot be used.
    """
    if is_own(name):
        return _own(name)
    known = find_benchmark(name)
    number = known.order(order)
    for task in dict.fromkeys((*known.defined, *(task for tasks in known.orders.values() for task in tasks))):
        answer_metric(known.task(task).metric)  # of every order, so that whoever wrote the card learns of a slip
    stream = None
    if data_dir is not None or not known.needs_data:
        stream = open_stream(name, data_dir=data_dir, order=order)
    tasks = {task.name: task for task in stream} if stream else {}
    return BenchmarkCard(
        name=known.name,
        title=known.title,
        own=False,
        orders=known.orders,
        hashes={number: hash_of_list(tasks) for number, tasks in known.orders.items()},
        aliases=known.aliases,
        modality=known.modality,
        needs_data=known.needs_data,
        prompt_limit=known.prompt_limit,
        order_digest=stream.digest() if stream else None,
        note=stream.note if stream else "",
        tasks=tuple(
            _known(known, task, tasks.get(task))
            for task in (stream.names if stream else known.orders.get(number, known.tasks))
        ),
    )


def _own(name: str) -> BenchmarkCard:
    """Return the card of a user's own YAML file, or of a folder, whose tasks are shown by name."""
    stream = open_stream(name, tasks=sorted(task_folders(Path(name))) if is_folder(name) else None)
    orders = {} if is_folder(name) else {1: stream.names}
    return BenchmarkCard(
        name=name,
        title=f"{stream.name}: {len(stream)} tasks of your own",
        own=True,
        orders=orders,
        hashes={number: hash_of_list(names) for number, names in orders.items()},
        aliases={alias: number for number, names in orders.items() for alias in _like(names)},
        modality=tuple(sorted({"image" if task.form == "image" else "text" for task in stream})),
        needs_data=False,
        prompt_limit=None,
        order_digest=stream.digest(),
        note=stream.note,
        tasks=tuple(
            TaskCard(task.name, task.labels, task.metric, task.source, licence="", at_hand=_of_rows(task))
            for task in stream
        ),
    )


def _like(names: Sequence[str]) -> list[str]:
    """Return orders of our benchmarks that are these tasks under other spellings, as EasyCL's SST-2 is our sst2."""
    plain = [plain_spelling(name) for name in names]
    orders = [(info.name, number, known) for info in benchmarks() for number, known in info.orders.items()]
    return [
        f"{name} order {number}" for name, number, known in orders if [plain_spelling(one) for one in known] == plain
    ]


def _known(benchmark: Benchmark, name: str, task: Task | None) -> TaskCard:
    """Return what is known of a task, with what its rows are like if they are at hand."""
    known = benchmark.task(name)
    return TaskCard(
        name=name,
        labels=tuple(task.labels if task else known.labels),
        metric=task.metric if task else known.metric,
        source=known.source,
        licence=known.licence,
        published=PublishedSizes(*known.published) if known.published else None,
        classes=benchmark.classes // len(benchmark.tasks) if benchmark.classes else None,
        at_hand=_of_rows(task) if task else None,
    )


def _of_rows(task: Task) -> TaskRows:
    """Return sizes, digest and lengths in words of a task's rows."""
    sizes, digest = SplitSizes(len(task.train), len(task.dev), len(task.test)), task.digest()
    if task.form == "image":
        shapes = sorted({"x".join(map(str, row.input.shape)) for row in task.test})
        pictures = shapes[0] if len(shapes) == 1 else f"{len(shapes)} sizes"
        return TaskRows(sizes, digest, dict(task.left_out), pictures=pictures)
    words = sorted(len(WORD.findall(_text(row))) for row in task.train)
    answers = sorted(len(WORD.findall(row.target)) for row in task.train)
    return TaskRows(sizes, digest, dict(task.left_out), words=_statistics(words), answer_words=_statistics(answers))


def _text(row: Example) -> str:
    if isinstance(row.input, str):
        return row.input
    return " ".join(str(message.get("content", "")) for message in row.input)


def _statistics(lengths: Sequence[int]) -> Lengths:
    """Return mean, median, 95th percentile and maximum of sorted numbers."""
    p50, p95, most = (lengths[min(len(lengths) - 1, int(share * len(lengths)))] for share in SHARES)
    return Lengths(round(sum(lengths) / len(lengths), 1), p50, p95, most)
