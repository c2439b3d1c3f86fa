"""Every benchmark goes through the battery of `everlora.testing`; a new one is in it by being registered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from everlora import Example, Task, benchmark
from everlora.benchmarks import benchmarks, find_benchmark, load_known, open_stream, read_benchmark
from everlora.benchmarks.cards import card
from everlora.core import registry
from everlora.core.benchmark import BENCHMARKS
from everlora.core.errors import ConfigError, DataError
from everlora.testing import BENCHMARK_CHECKS, benchmark_battery, made_up_rows


def _mnist(folder: Path) -> Path:
    """Forty pictures of each digit, no two alike."""
    numbers = np.repeat(np.arange(10, dtype=np.uint8), 40)
    pictures = np.random.default_rng(0).integers(0, 255, size=(400, 6, 6), dtype=np.uint8)
    split = {"x_train": pictures[::2], "y_train": numbers[::2], "x_test": pictures[1::2], "y_test": numbers[1::2]}
    np.savez(folder / "mnist.npz", **split)
    return folder


DATA = {"vision-mnist": _mnist}
OURS = [known.name for known in benchmarks() if known.name not in BENCHMARKS.from_outside()]
TESTS = {name: benchmark_battery(name, data=DATA.get(name)) for name in OURS}
globals().update({"test_" + name.replace("-", "_"): test for name, test in TESTS.items()})


@pytest.fixture
def own_names() -> Iterator[None]:
    with registry.isolated():
        yield


def checks_of(test) -> set[str]:
    (mark,) = test.pytestmark
    return set(mark.args[1])


def test_rows_are_checked_wherever_they_can_be() -> None:
    with_rows = {name for name, test in TESTS.items() if checks_of(test) == set(BENCHMARK_CHECKS)}
    assert with_rows == {"builtin", "standard", "long", "trace", "superni", "vision-digits", "vision-mnist"}


# --- it sees what is wrong -------------------------------------------------------------------------------------------


def rows(name, split, count=6, labels=("a", "b")):
    return [Example(f"{name} {split} {k}", labels[k % len(labels)]) for k in range(count)]


def task(name, **changes):
    made = Task(name=name, train=rows(name, "train"), dev=(), test=rows(name, "test"), labels=("a", "b"))
    return replace(made, **changes)


def _swapped(request):
    return [task(one.name, train=rows(one.name, f"train of order {request.order}")) for one in request.tasks]


BAD = {
    "the_card_is_complete": (lambda request: [task(one.name) for one in request.tasks], {"licence": ""}),
    "an_order_is_opened_as_it_is_listed": (_swapped, {}),
    "labels_are_those_of_the_card": (
        lambda request: [task(one.name, labels=("b", "a")) for one in request.tasks],
        {},
    ),
    "every_task_is_scored_by_its_metric": (
        lambda request: [task(one.name, metric="sari") for one in request.tasks],
        {},
    ),
    "no_row_is_in_two_splits": (
        lambda request: [task(one.name, dev=rows(one.name, "train", 1)) for one in request.tasks],
        {},
    ),
    "limits_take_rows_of_the_split": (
        lambda request: [
            task(one.name, train=rows(one.name, "other" if request.train else "train")) for one in request.tasks
        ],
        {},
    ),
    "tasks_can_be_chosen": (
        lambda request: [task(one.name, test=rows(one.name, f"{len(request.tasks)}")) for one in request.tasks],
        {},
    ),
    "orders_differ_and_have_each_task_once": (
        lambda request: [task(one.name) for one in request.tasks],
        {"orders": {1: "p q r s", 2: "p q r s"}},
    ),
}


@pytest.mark.parametrize("check", BAD)
def test_it_sees(own_names: None, check: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A benchmark with one fault fails the check that is named; without it, it passes."""
    loader, changes = BAD[check]
    facts = {"title": "t", "source": "s", "licence": "l", "rows_at_hand": True, "orders": {1: "p q r s", 2: "s r q p"}}
    tasks = {name: {"labels": ["a", "b"]} for name in "pqrs"}
    benchmark("faulty", tasks=tasks, **{**facts, **changes})(loader)
    benchmark("sound", tasks=tasks, **facts)(lambda request: [task(one.name) for one in request.tasks])
    assert set(BAD) == set(BENCHMARK_CHECKS)
    with pytest.raises(AssertionError):
        benchmark_battery("faulty")(check, tmp_path_factory)
    benchmark_battery("sound")(check, tmp_path_factory)


def test_it_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="no check is called nonsense; known: the_card"):
        benchmark_battery("long", without=["nonsense"])
    with pytest.raises(ConfigError, match="unknown benchmark 'lonk'; did you mean 'long'"):
        benchmark_battery("lonk")


# --- benchmarks of one's own -----------------------------------------------------------------------------------------

THREE = (
    "title: Three tasks\norders: {1: yahoo cb wic, 5: [wic, yahoo, cb]}\naliases: {5: [mine-5]}\nmetric: macro_f1\n"
)


def test_a_yaml_file_of_known_tasks_is_a_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(THREE)
    folder = made_up_rows(read_benchmark(path), tmp_path / "rows")
    stream = open_stream(path, data_dir=folder, order="MINE_5")
    assert stream.names == ("wic", "yahoo", "cb")
    assert {one.metric for one in stream} == {"macro_f1"}
    assert stream.tasks[0].labels == ("True", "False")
    theirs = open_stream("long", data_dir=folder, tasks=["wic", "yahoo", "cb"])
    same = [replace(one, metric="exact_match").digest() for one in stream]
    assert same == [one.digest() for one in theirs]
    with pytest.raises(ConfigError, match="three has no order 2; orders: 1, 5"):
        open_stream(path, data_dir=folder, order=2)
    with pytest.raises(DataError, match="three has no task 'mnli'"):
        open_stream(path, data_dir=folder, tasks=["mnli"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("orders: {1: yahoo}\n", "three.yaml needs a title"),
        ("title: t\norders: {}\n", "three.yaml needs orders, or tasks"),
        ("title: t\norders: {1: yahoo yahoo}\n", "order 1 names the task 'yahoo' twice"),
        ("title: t\norders: {one: yahoo}\n", "an order must have a whole number, found 'one'"),
        ("title: t\norders: {1: yahoo}\nalias: {1: [a]}\n", "unknown key 'alias'; did you mean 'aliases'"),
        ("title: t\norders: {1: yahoo}\naliases: {2: [a]}\n", "aliases of order 2, and there is none"),
        ("title: t\norders: {1: yahoo}\nmetric: 3\n", "'metric' must be a text, found 3"),
        ("title: t\norders: {1: yahoo}\ntasks: {a: {}}\n", "defines tasks and has no loader"),
        (
            "title: t\norders: {1: a}\nloader: m:f\ntasks: {a: {labels: [yes, no]}}\n",
            "must be text, found True",
        ),
        ("title: t\norders: {1: a}\nloader: m:f\ntasks: {a: {labels: A B}}\n", "'labels' must be a list, found 'A B'"),
        ("title: t\norders: {1: a}\nloader: m:f\ntasks: {a: {modality: sound}}\n", "unknown modality 'sound'"),
        ("title: t\norders: {1: a}\nloader: m:f\ntasks: {a: {published: [1]}}\n", "rows of train and of test"),
        ("title: t\norders: {1: yahho}\n", "no benchmark defines the task 'yahho'; did you mean 'yahoo'"),
    ],
)
def test_facts_that_cannot_be_used_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_stream(path, data_dir=tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_known_tasks_in_python_and_a_plug_in_changes_no_known_task(own_names: None, tmp_path: Path) -> None:
    benchmark("mixed", title="t", orders="reviews yahoo")(load_known)
    folder = made_up_rows(find_benchmark("long"), tmp_path / "rows")
    stream = open_stream("mixed", data_dir=folder, max_train_samples=8)
    assert stream.names == ("reviews", "yahoo")
    before = open_stream("standard", data_dir=folder).digest()
    other = [task("yahoo")]
    benchmark("theirs", title="t", tasks="yahoo", rows_at_hand=True)(lambda request: other)
    assert open_stream("standard", data_dir=folder).digest() == before
    assert open_stream("theirs").tasks == tuple(other)
    with pytest.raises(ConfigError, match="the benchmark name 'Long' is taken by 'long'"):
        benchmark("Long", title="t", orders="yahoo")(load_known)


def test_a_loader_must_return_what_was_wanted(own_names: None) -> None:
    benchmark("short", title="t", tasks="p q", rows_at_hand=True)(lambda request: [task("q")])
    with pytest.raises(DataError, match=r"the loader of short must return the tasks p, q; it returned \['q'\]"):
        open_stream("short")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"orders": {1: "yahoo dbpedia", 2: "yahoo dbpdia"}}, "no benchmark defines the task 'dbpdia'.*'dbpedia'"),
        ({"orders": {1: "yahoo dbpedia"}, "metric": "exact_mach"}, "unknown metric 'exact_mach'.*'exact_match'"),
        ({"tasks": ["mine"], "metric": "exact_mach"}, "unknown metric 'exact_mach'.*'exact_match'"),
    ],
)
def test_a_card_with_a_slip_is_refused_when_it_is_shown(own_names: None, facts, message: str) -> None:
    benchmark("slipped", title="A slip", **facts)(lambda request: [])
    with pytest.raises(ConfigError, match=message):
        card("slipped")
