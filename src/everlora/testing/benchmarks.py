"""Checks every benchmark: its card, its orders, labels, metrics, and that nothing leaks between splits.

    test_my_three = benchmark_battery("my-three")

Facts are checked of every benchmark. Rows are checked where they are at hand: made on the spot, in a folder that is
given, or, for benchmarks whose folders are written in a known way, in a folder of made-up rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everlora.benchmarks import find_benchmark, open_stream
from everlora.benchmarks.cards import card
from everlora.core.benchmark import Benchmark, TaskInfo, owner
from everlora.core.errors import ConfigError
from everlora.data.checks import normalised
from everlora.data.stream import TaskStream, hash_of_list
from everlora.data.task import Task
from everlora.metrics import answer_metric

ROWS = {"train": 24, "dev": 6, "test": 12}
"""Made-up rows of a task, by split."""


@dataclass(frozen=True)
class BenchmarkCase:
    """Holds a benchmark, and where its rows are.

    >>> case = BenchmarkCase(find_benchmark("builtin"), None)
    >>> case.numbers
    [None]
    >>> the_card_is_complete(case)  # raises where it is not

    Attributes:
        benchmark: the benchmark.
        folder: its rows; None where they are made on the spot or not at hand.
    """

    benchmark: Benchmark
    folder: Path | None

    def opened(self, **options: Any) -> TaskStream:
        """Open the benchmark; ``order`` by default is the first."""
        return open_stream(self.benchmark.name, data_dir=self.folder, **options)

    @property
    def numbers(self) -> list[int | None]:
        """Return the numbers of its orders; None alone where it has none."""
        return list(self.benchmark.orders) or [None]


def the_card_is_complete(case: BenchmarkCase) -> None:
    """There is a title, and of every task its source, its terms and a known metric."""
    known = case.benchmark
    assert known.title
    for names in (known.tasks, *known.orders.values()):
        for name in names:
            task = known.task(name)
            assert task.source, f"the task {name!r} names no source"
            assert task.licence, f"the task {name!r} names no licence"
            assert answer_metric(task.metric).id == task.metric
            assert len(set(task.labels)) == len(task.labels), f"the task {name!r} has a label twice"
    if known.needs_data:
        facts = card(known.name)
        assert [task.name for task in facts.tasks] == list(known.tasks)
        assert facts.hashes == {number: hash_of_list(names) for number, names in known.orders.items()}


def orders_differ_and_have_each_task_once(case: BenchmarkCase) -> None:
    """No order has a task twice, no two orders have one hash, and every alias leads to its order."""
    known = case.benchmark
    for names in known.orders.values():
        assert len(set(names)) == len(names)
    hashes = [hash_of_list(names) for names in known.orders.values()]
    assert len(set(hashes)) == len(hashes)
    for alias, number in known.aliases.items():
        assert known.order(alias) == known.order(alias.upper().replace("-", "_")) == number
        assert number in known.orders


def an_order_is_opened_as_it_is_listed(case: BenchmarkCase) -> None:
    """Tasks come in the order of the list, with one digest each time; another order is another stream of the same."""
    known, streams = case.benchmark, {}
    for number in case.numbers:
        stream = case.opened(order=number)
        assert stream.names == (known.orders[number] if number is not None else known.tasks)
        assert stream.digest() == case.opened(order=number).digest()
        streams[number] = stream
    assert len({stream.digest() for stream in streams.values()}) == len(streams)
    digests: dict[str, str] = {}
    for task in (task for stream in streams.values() for task in stream):
        assert digests.setdefault(task.name, task.digest()) == task.digest(), f"{task.name!r} depends on the order"


def labels_are_those_of_the_card(case: BenchmarkCase) -> None:
    """Tasks have the labels that are known of them, in that order, and every row has one of them."""
    for task in case.opened():
        wanted = case.benchmark.task(task.name).labels
        if wanted:
            assert task.labels == wanted
        if task.labels:
            assert {row.target for row in task.train} == set(task.labels), f"a label of {task.name!r} is never learned"


def every_task_is_scored_by_its_metric(case: BenchmarkCase) -> None:
    """Tasks name the metric of the card, and by it whoever answers the targets has 100 percent."""
    for task in case.opened(max_eval_samples=20):
        assert task.metric == case.benchmark.task(task.name).metric
        answers = [row.answered(row.target) for row in task.test]
        score, _ = answer_metric(task.metric).score(answers, task.labels)
        assert score == pytest.approx(100.0), f"right answers to {task.name!r} do not have 100 percent"


def no_row_is_in_two_splits(case: BenchmarkCase) -> None:
    """What is tested was neither learned nor tuned on; pictures are compared byte by byte."""
    for task in case.opened():
        splits = [_keys(task, split) for split in ("train", "dev", "test")]
        for k, one in enumerate(splits):
            for other in splits[k + 1 :]:
                assert not one & other, f"{task.name!r} has a row in two splits"


def limits_take_rows_of_the_split(case: BenchmarkCase) -> None:
    """With fewer rows wanted, those that are left are of the same split, and the same ones each time."""
    tasks = case.benchmark.tasks[:2]
    few = case.opened(tasks=tasks, max_train_samples=3)
    for complete, some, again in zip(
        case.opened(tasks=tasks), few, case.opened(tasks=tasks, max_train_samples=3), strict=True
    ):
        assert len(some.train) == min(3, len(complete.train))
        assert some.digest() == again.digest()
        assert _keys(some, "train") <= _keys(complete, "train")
        assert _keys(some, "test") == _keys(complete, "test")


def tasks_can_be_chosen(case: BenchmarkCase) -> None:
    """Any tasks can be opened alone, in any order, with the same rows."""
    names = case.benchmark.tasks[::-1][:3]
    chosen = case.opened(tasks=names)
    assert chosen.names == names
    complete = {task.name: task.digest() for task in case.opened()}
    assert [task.digest() for task in chosen] == [complete[name] for name in names]


OF_FACTS = (the_card_is_complete, orders_differ_and_have_each_task_once)
OF_ROWS = (
    an_order_is_opened_as_it_is_listed,
    labels_are_those_of_the_card,
    every_task_is_scored_by_its_metric,
    no_row_is_in_two_splits,
    limits_take_rows_of_the_split,
    tasks_can_be_chosen,
)
BENCHMARK_CHECKS: dict[str, Callable[[BenchmarkCase], None]] = {check.__name__: check for check in OF_FACTS + OF_ROWS}
"""The checks of benchmarks, by name."""


def benchmark_battery(
    name: str, *, data: Path | Callable[[Path], Path] | None = None, without: Sequence[str] = ()
) -> Callable[..., None]:
    """Make a test function for a benchmark, to be given a name that begins with ``test``.

    >>> test_builtin = benchmark_battery("builtin", without=["tasks_can_be_chosen"])
    >>> [parametrised] = test_builtin.pytestmark
    >>> parametrised.args[1][:2]
    ['the_card_is_complete', 'orders_differ_and_have_each_task_once']

    Args:
        name: of the benchmark; what registers it must have been imported.
        data: the folder of its rows, or a function that writes one into an empty folder and returns it; by default
            rows are made up where the benchmark's folders are written in a known way, else none are checked.
        without: names of checks (`BENCHMARK_CHECKS`) that it does not mean to pass.

    Raises:
        ConfigError: unknown benchmark or check.
    """
    known = find_benchmark(name)
    if unknown := set(without) - set(BENCHMARK_CHECKS):
        raise ConfigError(f"no check is called {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARK_CHECKS)}")
    write = data if callable(data) else (lambda _: data) if data else _writer(known)
    checks = list(BENCHMARK_CHECKS)[: None if write else len(OF_FACTS)]

    written: dict[Path, Path | None] = {}

    def rows_of(folders: pytest.TempPathFactory) -> Path | None:
        """Return the folder of rows, which is written once per session."""
        base = folders.getbasetemp()
        if base not in written:
            written[base] = write(folders.mktemp("rows")) if write else None
        return written[base]

    @pytest.mark.parametrize("check", [check for check in checks if check not in without])
    def test(check: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        BENCHMARK_CHECKS[check](BenchmarkCase(known, rows_of(tmp_path_factory)))

    test.__doc__ = f"The battery of everlora for the benchmark {name}."
    return test


def _writer(known: Benchmark) -> Callable[[Path], Path | None] | None:
    """Return what puts rows at hand; None where nothing can."""
    if not known.needs_data:
        return lambda _: None
    owners = [owner(name) if name not in known.defined else known for name in known.tasks if _is_defined(known, name)]
    if len(owners) < len(known.tasks) or not all(one.rows for one in owners):
        return None
    return lambda folder: made_up_rows(known, folder)


def _is_defined(known: Benchmark, name: str) -> bool:
    try:
        return name in known.defined or bool(owner(name))
    except ConfigError:
        return False


def made_up_rows(known: Benchmark, folder: Path) -> Path:
    """Write rows of every task of a benchmark, in the way of the benchmark that defines the task; returns the folder.

    No two rows have one text, and every label has rows in every split.

    >>> sorted(path.name for path in made_up_rows(find_benchmark("trace"), Path("rows")).iterdir())[:3]
    ['20Minuten', 'C-STANCE', 'FOMC']
    """
    for name in dict.fromkeys(name for names in (known.tasks, *known.orders.values()) for name in names):
        task, rows = known.task(name), (known if name in known.defined else owner(name)).rows
        place = folder / name
        place.mkdir(parents=True)
        for split, count in ROWS.items():
            size = max(count, 2 * len(task.labels))
            lines = [json.dumps(_row(task, rows, split, number)) for number in range(size)]
            (place / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def _row(task: TaskInfo, rows: str, split: str, number: int) -> dict[str, object]:
    text = f"{task.name} in {split}, row {number}"
    target = task.labels[number % len(task.labels)] if task.labels else f"one answer to number {number} of {split}"
    if rows == "trace":
        return {"prompt": text, "answer": target}
    if rows == "superni":
        return {"input": text, "output": [target, f"another {target}"]}
    return {"text": text, "label": target}


def _keys(task: Task, split: str) -> set[Any]:
    """Return what makes a row of a split the same as another."""
    rows = getattr(task, split)
    if task.form == "image":
        return {(row.input.shape, row.input.tobytes()) for row in rows}
    return {normalised(row, task.form, bool(task.labels)) for row in rows}
