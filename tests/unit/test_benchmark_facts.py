"""What a benchmark says of itself: tasks, orders, how it is scored, where rows are from, who defines a task."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
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


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    with BENCHMARKS.isolated():
        yield


def tasks(*names: str, **facts: Any) -> dict[str, TaskInfo]:
    return {name: TaskInfo(name=name, **facts) for name in names}


def added(name: str, *, module: str = "theirs", **facts: Any) -> Benchmark:
    made = Benchmark(name=name, title="t", **facts)
    BENCHMARKS.add(name, made, module=module)
    return made


# --- tasks and kinds of input ----------------------------------------------------------------------------------------


def test_without_orders_the_usual_kind_of_input_is_that_of_the_first_task() -> None:
    both = Benchmark(name="b", title="t", defined=tasks("p", "q") | tasks("r", modality="image"))
    assert (both.modality, both.tasks) == (("text", "image"), ("p", "q"))
    assert (both.tasks_of("image"), both.tasks_of("text")) == (("r",), ("p", "q"))
    turned = Benchmark(name="b", title="t", defined=dict(reversed(both.defined.items())))
    assert (turned.modality, turned.tasks) == (("image", "text"), ("r",))


def test_with_orders_the_first_of_them_says_what_its_tasks_are() -> None:
    defined = tasks("p", "q", modality="image") | tasks("r")
    known = Benchmark(name="b", title="t", defined=defined, orders={3: ("q", "p"), 1: ("r", "q")})
    assert (known.modality, known.tasks) == (("image",), ("q", "p"))


def test_scoring_is_that_of_all_tasks_or_per_task() -> None:
    defined = tasks("p", "q", metric="bleu") | tasks("r")
    assert Benchmark(name="b", title="t", defined=defined, orders={1: ("p", "q")}).scoring == "bleu"
    assert Benchmark(name="b", title="t", defined=defined, orders={1: ("p", "r")}).scoring == "per task"
    assert Benchmark(name="b", title="t", defined=defined, metric="sari").scoring == "sari"


# --- where rows come from --------------------------------------------------------------------------------------------


def load(request: Request) -> list[str]:
    return [task.name for task in request.tasks]


def test_rows_are_read_unless_they_are_at_hand() -> None:
    """A benchmark without a loader needs data if one of the benchmarks that define its tasks does."""
    read = added("read", defined=tasks("p"), loader=load)
    made = added("made", defined=tasks("q"), loader=load, rows_at_hand=True)
    assert (read.needs_data, made.needs_data) == (True, False)
    for order, needed in ((("p",), True), (("q",), False), (("q", "p"), True)):
        assert Benchmark(name="mixed", title="t", orders={1: order}).needs_data is needed
    assert Benchmark(name="shipped", title="t", orders={1: ("p",)}, rows_at_hand=True).needs_data is False


def test_a_loader_is_a_function_or_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loads_rows.py").write_text("def read(request):\n    return [request.order, request.seed]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    known = Benchmark(name="b", title="t", defined=tasks("p", "q"), loader=load)
    request = Request(benchmark=known, tasks=(known.task("q"), known.task("p")))
    assert known.load(request) == ["q", "p"]
    named = replace(known, loader="loads_rows:read")
    # As where a user names neither: the first order, and rows of seed 0.
    assert named.load(request) == [named.order(None), 0]
    with pytest.raises(ConfigError, match="b has no loader of its own; its tasks are read by those who define them"):
        replace(known, loader=None).load(request)


def test_a_folder_can_be_given_unless_a_benchmark_says_otherwise() -> None:
    plain = Benchmark(name="b", title="t")
    assert (plain.takes_folder, plain.rows_at_hand) == (True, False)


# --- facts of a task -------------------------------------------------------------------------------------------------


def test_a_task_is_looked_up_where_it_is_defined() -> None:
    here = added("here", defined=tasks("p", licence="of here"))
    there = added("there", orders={1: ("p", "q")}, defined=tasks("q", metric="bleu"), loader=load)
    assert (there.task("p"), there.task("q")) == (here.defined["p"], there.defined["q"])
    scored = replace(there, metric="sari")
    assert [scored.task(name).metric for name in "pq"] == ["sari", "sari"]
    assert scored.task("p").licence == "of here"
    with pytest.raises(ConfigError, match="no benchmark defines the task 'r'"):
        there.task("r")  # others have facts, so this is a slip


def test_tasks_without_facts_are_known_to_their_loader_alone() -> None:
    usual = TaskInfo(name="", licence="MIT")
    bare = added("bare", orders={1: ("x1", "x2")}, defaults=usual, loader=load)
    assert bare.task("x2") == TaskInfo(name="x2", licence="MIT")
    with pytest.raises(ConfigError, match="no benchmark defines the task 'x2'"):
        replace(bare, loader=None).task("x2")
    elsewhere = added("elsewhere", defined=tasks("x1"))
    assert bare.task("x1") == elsewhere.defined["x1"]
    with pytest.raises(ConfigError, match="no benchmark defines the task 'x2'"):
        bare.task("x2")  # a neighbour in its order has facts by now


def test_ours_define_a_task_before_plug_ins_do() -> None:
    first, second = (added(name, defined=tasks("p")) for name in ("first", "second"))
    assert defining("p") == [first, second]
    with pytest.raises(ConfigError) as caught:
        owner("p")
    assert str(caught.value) == (
        "several benchmarks define a task 'p': first, second; define it under tasks of your own"
    )
    ours = added("third", defined=tasks("p"), module="everlora.benchmarks.packaged")
    assert owner("p") == ours
    added("fourth", defined=tasks("q"))
    assert owner("q").name == "fourth"
    with pytest.raises(ConfigError, match="no benchmark defines the task 'agnewz'; did you mean 'agnews'"):
        owner("agnewz")


def test_folders_written_in_a_way_are_served_by_the_benchmark_that_says_so() -> None:
    found = {rows: known.name for rows in ("o-lora", "trace", "superni") if (known := written_as(rows))}
    assert found == {"o-lora": "long", "trace": "trace", "superni": "superni"}
    assert written_as("by hand") is None


# --- orders ----------------------------------------------------------------------------------------------------------


def test_an_order_by_number_by_name_and_by_default() -> None:
    known = Benchmark(name="b", title="t", orders={5: ("p",), 2: ("q",)}, aliases={"Paper-order_2": 2, "paper-1": 5})
    assert [known.order(order) for order in (None, 2, "2", "PAPER 2", "paper_order-1", 5)] == [5, 2, 2, 2, 5, 5]
    with pytest.raises(ConfigError) as caught:
        known.order("paper-3")
    assert str(caught.value).startswith("b has no order 'paper-3'; did you mean 'paper-1'?")
    with pytest.raises(ConfigError, match=r"^b has no order 77; orders: 5, 2$"):
        known.order(77)
    with pytest.raises(ConfigError, match=r"^b has no order 7; orders: 5, 2 \(7 is of 'trace'\)$"):
        known.order("7")


def test_a_benchmark_without_orders_has_one() -> None:
    plain = Benchmark(name="b", title="t", defined=tasks("p"))
    assert [plain.order(order) for order in (None, 1, "1")] == [1, 1, 1]
    with pytest.raises(ConfigError, match="b has no order 2; orders: 1"):
        plain.order(2)
    with pytest.raises(ConfigError, match=r"^b has no order 'first'; give a number$"):
        plain.order("first")


def test_facts_are_values_that_can_stand_in_sets() -> None:
    known = BENCHMARKS.all().values()
    assert len({*known}) == len(known)
    facts = [one.task(name) for one in known for name in one.tasks]
    assert len({*facts}) == len({repr(one) for one in facts})
