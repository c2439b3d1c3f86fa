"""The card of a benchmark: what is known of its tasks, and what their rows are like where they are at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from everlora.benchmarks.streams import benchmarks, find_benchmark, is_own, open_stream
from everlora.core.benchmark import Benchmark
from everlora.data.folders import plain_spelling
from everlora.data.own import task_folders
from everlora.data.rows import is_folder
from everlora.data.task import Example, Task, hash_of_list

WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\s\u3040-\u30ff\u4e00-\u9fff]+")
"""Chinese and Japanese have no spaces between words: each of their characters counts as one."""
SHARES = (0.5, 0.95, 1.0)


def card(name: str, *, data_dir: Path | None = None, order: int | str | None = None) -> dict[str, Any]:
    """What there is to know about a benchmark.

    Sizes, digests and lengths are those of the rows at hand: in ``data_dir``, or made on the spot. Nothing is fetched.

    Args:
        name: of a benchmark, or the path of a YAML file or folder of your own.
        data_dir: where a benchmark's rows are.
        order: which order's tasks are shown, and rows counted.

    Raises:
        ConfigError: there is no such benchmark or order.
        DataError: the data cannot be used.
    """
    if is_own(name):
        return _own(name)
    known = find_benchmark(name)
    number = known.order(order)
    stream = None
    if data_dir is not None or not known.needs_data:
        stream = open_stream(name, data_dir=data_dir, order=order)
    facts = {
        "name": known.name,
        "title": known.title,
        "orders": {str(number): list(tasks) for number, tasks in known.orders.items()},
        "hashes": {str(number): hash_of_list(tasks) for number, tasks in known.orders.items()},
        "aliases": dict(known.aliases),
        "modality": list(known.modality),
        "needs_data": known.needs_data,
        "prompt_limit": known.prompt_limit,
        "order_digest": stream.digest() if stream else None,
        "note": stream.note if stream else "",
    }
    of_rows = {task.name: _of_rows(task) for task in stream} if stream else {}
    names = stream.names if stream else known.orders.get(number, known.tasks)
    return {**facts, "tasks": [{**_known(known, task), **of_rows.get(task, {})} for task in names]}


def _own(name: str) -> dict[str, Any]:
    """The card of a user's own YAML file, or of a folder, whose tasks are shown by name."""
    stream = open_stream(name, tasks=sorted(task_folders(Path(name))) if is_folder(name) else None)
    orders = {} if is_folder(name) else {1: stream.names}
    return {
        "name": name,
        "title": f"{stream.name}: {len(stream)} tasks of your own",
        "orders": {str(number): list(names) for number, names in orders.items()},
        "hashes": {str(number): hash_of_list(names) for number, names in orders.items()},
        "aliases": {alias: number for number, names in orders.items() for alias in _like(names)},
        "modality": sorted({"image" if task.form == "image" else "text" for task in stream}),
        "needs_data": False,
        "order_digest": stream.digest(),
        "note": stream.note,
        "tasks": [{"name": task.name, "source": task.source, "terms": "", **_of_rows(task)} for task in stream],
    }


def _like(names: Sequence[str]) -> list[str]:
    """Orders of our benchmarks that are these tasks under other spellings: what EasyCL calls SST-2 is our sst2."""
    plain = [plain_spelling(name) for name in names]
    orders = [(info.name, number, known) for info in benchmarks() for number, known in info.orders.items()]
    return [
        f"{name} order {number}" for name, number, known in orders if [plain_spelling(one) for one in known] == plain
    ]


def _known(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """What is known of a task without its rows."""
    task = benchmark.task(name)
    facts: dict[str, Any] = {
        "name": name,
        "labels": list(task.labels),
        "metric": task.metric,
        "source": task.source,
        "terms": task.licence,
    }
    if task.published:
        facts["published"] = dict(zip(("train", "test"), task.published, strict=True))
    if benchmark.classes:
        facts["classes"] = benchmark.classes // len(benchmark.tasks)
    return facts


def _of_rows(task: Task) -> dict[str, Any]:
    """Sizes, digest and lengths in words of a task's rows."""
    rows: dict[str, Any] = {split: len(getattr(task, split)) for split in ("train", "dev", "test")}
    facts = {"labels": list(task.labels), "metric": task.metric, "rows": rows, "digest": task.digest()}
    facts["left_out"] = dict(task.left_out)
    if task.form == "image":
        shapes = sorted({"x".join(map(str, row.input.shape)) for row in task.test})
        return {**facts, "pictures": shapes[0] if len(shapes) == 1 else f"{len(shapes)} sizes"}
    words = sorted(len(WORD.findall(_text(row))) for row in task.train)
    answers = sorted(len(WORD.findall(row.target)) for row in task.train)
    return {**facts, "words": _statistics(words), "answer_words": _statistics(answers)}


def _text(row: Example) -> str:
    if isinstance(row.input, str):
        return row.input
    return " ".join(str(message.get("content", "")) for message in row.input)


def _statistics(lengths: Sequence[int]) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum of sorted numbers."""
    ranks = [lengths[min(len(lengths) - 1, int(share * len(lengths)))] for share in SHARES]
    return {"mean": round(sum(lengths) / len(lengths), 1)} | dict(zip(("p50", "p95", "max"), ranks, strict=True))
