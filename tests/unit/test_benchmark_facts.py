"""What a benchmark says of itself: tasks, orders, how it is scored, where rows are from, who defines a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import everlora.benchmarks  # noqa: F401
from everlora.core import registry
from everlora.core.benchmark import BENCHMARKS, Benchmark, Request, TaskInfo, defining, owner, written_as
from everlora.core.errors import ConfigError


@pytest.fixture
def own_names() -> Iterator[None]:
    with registry.isolated():
        yield


def read(request: Request) -> list[str]:
    return [task.name for task in request.tasks]


def made(name: str = "mine", **more: Any) -> Benchmark:
    """A benchmark of two tasks of text and a picture, scored alike."""
    tasks = (TaskInfo(name="a"), TaskInfo(name="b"), TaskInfo(name="p", modality="image"))
    return Benchmark(**{"name": name, "title": "t", "defined": {one.name: one for one in tasks}, **more})


def add(one: Benchmark, module: str) -> Benchmark:
    BENCHMARKS.add(one.name, one, module=module)
    return one


def test_packaged_benchmarks_say_where_their_rows_are_from_and_how_they_are_scored() -> None:
    known = [one for name, one in BENCHMARKS.all().items() if name not in BENCHMARKS.from_outside()]
    at_hand = {one.name for one in known if not one.needs_data}
    assert at_hand == {"builtin", "vision-digits"} == {one.name for one in known if one.rows_at_hand}
    assert {one.name: one.scoring for one in known if one.scoring != "exact_match"} == {
        "trace": "per task",
        "superni": "rouge_l_stemmed",
    }
    assert {one.name for one in known if one.takes_folder} == {"standard", "long", "trace", "superni", "vision-mnist"}
    assert {one.name: one.modality for one in known if one.modality != ("text",)} == {
        "builtin": ("text", "image"),
        **{one.name: ("image",) for one in known if one.name.startswith("vision-")},
    }


def test_benchmarks_and_tasks_are_values() -> None:
    """What is known as a mapping is no part of the hash, and is compared all the same."""
    known = BENCHMARKS.all()
    assert len({*known.values()}) == len(known)
    assert hash(made()) == hash(made())
    assert len({TaskInfo(name="a", hub={"path": "x"}), TaskInfo(name="a", hub={"path": "x"})}) == 1
    assert made() == made() != made(orders={1: ("a",)})


def test_a_benchmark_that_says_little() -> None:
    one = made()
    assert (one.rows_at_hand, one.takes_folder, one.metric) == (False, True, "")
    assert (one.modality, one.tasks, one.tasks_of("image")) == (("text", "image"), ("a", "b"), ("p",))
    request = Request(benchmark=one, tasks=())
    assert (request.order, request.seed, request.data_dir, request.train, request.evaluate) == (1, 0, None, None, None)
    assert (one.order(None), one.order(1), one.order("1")) == (1, 1, 1)
    ordered = made(orders={4: ("p", "a"), 7: ("b",)})
    assert (ordered.order(None), ordered.order("7"), ordered.tasks) == (4, 7, ("p", "a"))
    assert ordered.modality == ("image", "text")


def test_one_metric_for_all_or_one_per_task() -> None:
    tasks = {"a": TaskInfo(name="a", metric="bleu"), "b": TaskInfo(name="b", metric="sari")}
    assert made(defined=tasks).scoring == "per task"
    assert made(defined={"a": tasks["a"]}).scoring == "bleu"
    assert made(defined=tasks, metric="rouge_l").scoring == "rouge_l"
    assert made(defined=tasks, metric="rouge_l").task("a").metric == "rouge_l"
    assert made(defined=tasks).task("a").metric == "bleu"


def test_rows_come_from_its_loader_or_from_whoever_defines_its_tasks(own_names: None) -> None:
    assert made(loader=read).needs_data
    assert not made(loader=read, rows_at_hand=True).needs_data
    assert not made(rows_at_hand=True).needs_data
    add(made("there", defined={"x": TaskInfo(name="x")}, loader=read), "theirs")
    add(made("here", defined={"y": TaskInfo(name="y")}, loader=read, rows_at_hand=True), "theirs")
    assert made(defined={}, orders={1: ("y", "x")}).needs_data
    assert not made(defined={}, orders={1: ("y",)}).needs_data


def test_a_loader_is_a_function_or_named() -> None:
    one = made(loader=read)
    request = Request(benchmark=one, tasks=(one.task("b"), one.task("a")))
    assert list(one.load(request)) == ["b", "a"]
    assert list(made(loader=f"{__name__}:read").load(request)) == ["b", "a"]
    with pytest.raises(ConfigError, match="mine has no loader of its own; its tasks are read by those who define"):
        made().load(request)


def test_a_task_without_facts_is_known_to_a_loader_that_states_none(own_names: None) -> None:
    alone = made(defined={}, orders={1: ("u", "v")}, loader=read, defaults=TaskInfo(name="", instruction="Say."))
    assert alone.task("u") == TaskInfo(name="u", instruction="Say.")
    add(made("there", defined={"v": TaskInfo(name="v", source="s")}), "theirs")
    assert alone.task("v").source == "s", "somebody has facts of it"
    with pytest.raises(ConfigError, match="no benchmark defines the task 'u'"):
        alone.task("u")  # others of its tasks have facts, so this one is a slip
    for lacking in (made(loader=read), made(orders={1: ("a",)})):
        with pytest.raises(ConfigError, match="no benchmark defines the task 'agnew'; did you mean 'agnews'"):
            lacking.task("agnew")


def test_a_task_has_one_owner_and_ours_come_first(own_names: None) -> None:
    (ours,) = defining("agnews")
    add(made("theirs", defined={"agnews": TaskInfo(name="agnews"), "z": TaskInfo(name="z")}), "theirs")
    assert [one.name for one in defining("agnews")] == sorted([ours.name, "theirs"], key=list(BENCHMARKS.all()).index)
    assert owner("agnews") == ours
    assert owner("z").name == "theirs"
    add(made("others", defined={"z": TaskInfo(name="z")}), "others")
    with pytest.raises(
        ConfigError, match=r"several benchmarks define a task 'z': (theirs, others|others, theirs); def"
    ):
        owner("z")


def test_folders_are_written_as_one_benchmark_or_none() -> None:
    assert [one.name for one in map(written_as, ("o-lora", "trace", "superni")) if one] == ["long", "trace", "superni"]
    assert written_as("other") is None


def test_orders_by_other_names() -> None:
    one = made(orders={1: ("a",), 2: ("b",)}, aliases={"data-order_2": 2})
    assert one.order("data-2") == one.order("DATA order2") == 2
    with pytest.raises(ConfigError, match="mine has no order 'data-order_3'; did you mean 'data-order_2'"):
        one.order("data-order_3")
    with pytest.raises(ConfigError, match="mine has no order 'first'; give a number"):
        made(orders={1: ("a",)}).order("first")
    with pytest.raises(ConfigError, match=r"mine has no order 4; orders: 1, 2 \(4 is of 'long'\)$"):
        one.order(4)
    with pytest.raises(ConfigError, match=r"mine has no order 99; orders: 1, 2$"):
        one.order("99")
