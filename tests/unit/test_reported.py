"""Papers' numbers beside ours: the right column, marked with what differs between the protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everlora.analysis.answers import ComparedProtocol, ScoredRun
from everlora.analysis.compare import RunAnswers
from everlora.analysis.comparison import Row, Section
from everlora.archive.identity import Composition
from everlora.literature.published import Published, published
from everlora.literature.reported import differs, published_rows
from everlora.settings import protocol
from everlora.settings.spec import RunSpec

ORDERS = {1: ("a", "b"), 2: ("b", "a")}


def ran(order: int, **settings: Any) -> ScoredRun:
    told = {"model": "tiny-t5", **settings}
    answered = RunAnswers(0, ORDERS[order], {}, " ".join(ORDERS[order]))
    spec = RunSpec(**told)
    composition = Composition(name="ella", regime="sequence", consolidator="sum")
    protocol = ComparedProtocol.of(spec, {})
    return ScoredRun(Path(), "ella", "replay-free", composition, protocol, spec, "hash", {}, answered, {})


def sections(**by_order: dict[str, float]) -> list[Section]:
    rows = [Row(name, [0], list(of), len(of), of, [], [], [], {}, {}) for name, of in by_order.items()]
    return [Section("replay-free", None, rows)]


def reported(method: str, column: str) -> list[Published]:
    return [one for one in published() if (one.method, one.column, one.metric) == (method, column, "oa")]


def test_the_order_that_was_run_and_no_mean_before_all_were() -> None:
    found = published_rows([ran(1)], sections(ella={"a b": 50.0}), ORDERS, "standard")
    assert {one.column for one in found} == {"order 1"}
    ella = next(one for one in found if one.method == "ella" and one.paper == "ELLA")
    assert (ella.printed, ella.ours) == (80.0, 50.0)
    assert {one.ours for one in found if one.method == "lb-cl"} == {None}


def test_the_mean_over_orders_stands_beside_ours() -> None:
    runs = [ran(1), ran(2)]
    found = published_rows(runs, sections(ella={"a b": 50.0, "b a": 40.0}), ORDERS, "standard")
    both = [one for one in found if one.column == "standard" and one.method == "ella" and one.ours is not None]
    assert {one.ours for one in both} == {45.0}
    half = published_rows(runs, sections(ella={"a b": 50.0}), ORDERS, "standard")
    assert all(one.ours is None for one in half if one.column == "standard")


def test_order_1_of_another_benchmark_is_another_order() -> None:
    assert not published_rows([ran(1)], sections(ella={"a b": 50.0}), ORDERS, "superni")
    found = published_rows([ran(1)], sections(**{"ps-lora": {"a b": 50.0}}), ORDERS, "vision-imagenet-r")
    assert [(one.printed, one.ours) for one in found] == [(77.15, 50.0)]


def test_a_number_that_is_printed_twice_stands_once() -> None:
    found = published_rows([ran(1)], sections(), ORDERS, "standard")
    each = [(one.paper, one.model, one.method, one.column, one.printed) for one in found]
    assert len(each) == len(set(each))
    (one,) = [one for one in found if (one.paper, one.method, one.model) == ("LB-CL", "lb-cl", "t5-large")]
    assert one.where == "Main Results"


def test_papers_that_disagree_both_stand() -> None:
    found = published_rows([ran(1)], sections(), ORDERS, "standard")
    assert {one.printed for one in found if one.method == "o-lora" and one.model == "t5-large"} >= {73.5, 74.9}


def test_a_method_with_options_is_the_papers_method_if_there_is_one_of_it() -> None:
    one = published_rows([ran(1)], sections(**{"ella(lam=1)": {"a b": 50.0}}), ORDERS, "standard")
    two = published_rows(
        [ran(1)], sections(**{"ella(lam=1)": {"a b": 50.0}, "ella(lam=2)": {"a b": 1.0}}), ORDERS, "standard"
    )
    assert {x.ours for x in one if x.method == "ella"} == {50.0}
    assert {x.ours for x in two if x.method == "ella"} == {None}


def test_what_differs_is_said() -> None:
    one = next(x for x in reported("ella", "order 1") if x.paper == "ELLA")
    assert one.protocol == "paper-ella"
    same = protocol.read("paper-ella")[1].settings
    assert differs(one, ran(1, **{**same, "model": "t5-large"})) == []
    other = {**same, "max_train_samples": 96, "prompt": None, "train": {**same["train"], "num_train_epochs": 3}}
    said = differs(one, ran(1, **other))
    assert said[0] == "model t5-large, ours tiny-t5"
    assert said[1] == "all rows, ours max_train_samples=96"
    assert "prompt is another" in said
    assert "num_train_epochs 1, ours 3" in said


def test_what_no_protocol_mentions_is_said_too() -> None:
    """Steps that end training early, a share of test rows, parts of a rate: the hash is of them, so the words are."""
    one = next(x for x in reported("ella", "order 1") if x.paper == "ELLA")
    same = protocol.read("paper-ella")[1].settings
    more = {"max_steps": 2, "warmup_steps": 5, "per_device_train_batch_size": 64, "gradient_accumulation_steps": 1}
    run = ran(1, **{**same, "model": "t5-large", "max_eval_per_class": 2, "train": {**same["train"], **more}})
    assert differs(one, run) == [
        "all rows, ours max_eval_per_class=2",
        "max_steps not set, ours 2",
        "warmup_steps not set, ours 5",
    ]
