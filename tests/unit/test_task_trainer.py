"""What a stage is trained with: its arguments, its epochs, the rows of a step, and the order in which rows come."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.updates import Weights
from everlora.data.task import Example, Task
from everlora.settings.spec import LearnerSpec
from everlora.settings.training import epochs_by_size
from everlora.training.blocks import BlockRunner
from everlora.training.order import Blocks, EqualShares
from everlora.training.stages import stages
from everlora.training.task_trainer import TaskTrainer

LINES = [Example(f"{k}", "yes") for k in range(24)]
TASKS = [Task(name=name, train=LINES, test=LINES[:1], labels=("yes",)) for name in "ab"]


def trainer(method: Any = "seqlora", tasks: list[Task] = TASKS, **train: object) -> TaskTrainer:
    parsed = parse(method) if isinstance(method, str) else method
    spec = LearnerSpec(model="m", train={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, **train})
    stage = stages(parsed, tasks)[0]
    return TaskTrainer(cast(Any, None), parsed, spec, cast(Any, None), stage, cast(Any, None), None, {})


@pytest.mark.parametrize(
    ("train", "by_rows"),
    [
        ({}, True),
        ({"max_steps": -1}, True),
        ({"max_steps": 1}, False),
        ({"max_steps": 2}, False),
        ({"num_train_epochs": 2}, False),
        ({"num_train_epochs": 2, "max_steps": -1}, False),
    ],
)
def test_the_number_of_rows_makes_epochs_where_neither_these_nor_steps_are_set(
    train: dict[str, object], by_rows: bool
) -> None:
    one = trainer(**train)
    wanted = epochs_by_size(24, 4)
    assert one.calibration == 1, "predictions stand as they are"
    assert one.epochs == (wanted if by_rows else None)
    assert one.arguments.get("num_train_epochs") == (wanted if by_rows else train.get("num_train_epochs"))
    joint = trainer("mtl", **train)
    assert joint.epochs == (epochs_by_size(48, 4) if by_rows else None), "rows of all tasks of the stage"


def test_a_step_has_the_rows_of_all_its_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(per_device_train_batch_size=4, gradient_accumulation_steps=3)
    assert (one.batch, type(one.batch)) == (12, int)
    monkeypatch.setattr("everlora.runtime.world.size", lambda: 2)
    assert one.batch == 24


class Counted:
    """As many rows as it says."""

    def __init__(self, *sizes: int, rehearsed: int = 0) -> None:
        self.sizes, self.fresh, self.all = list(sizes), sum(sizes), sum(sizes) + rehearsed

    def __len__(self) -> int:
        return self.all


def chain() -> Any:
    weights = Weights({"w": torch.zeros(2), "v": torch.zeros(3)})
    return SimpleNamespace(groups=[SimpleNamespace(live=[weights, weights])], recurrence=None)


EQUAL = replace(parse("mtl"), mixing="equal")


def test_rows_are_shuffled_unless_the_method_arranges_them() -> None:
    for strategy in ("random", "sequential"):
        assert trainer(train_sampling_strategy=strategy).order(cast(Any, Counted(9)), chain(), 0) is None
    even = trainer(EQUAL).order(cast(Any, Counted(9, 4)), chain(), 5)
    assert isinstance(even, EqualShares)
    assert (even.sizes, even.seed) == ([9, 4], 5)
    for method in (EQUAL, "kif"):
        with pytest.raises(ConfigError, match="arranges the rows itself; leave out train_sampling_strategy=sequent"):
            trainer(method, train_sampling_strategy="sequential").order(cast(Any, Counted(9)), chain(), 0)


def test_blocks_begin_with_the_second_task() -> None:
    kif = trainer("kif(inner=3,outer=2)")
    held = chain()
    assert kif.order(cast(Any, Counted(9)), held, 0) is None
    assert held.recurrence is None
    order = kif.order(cast(Any, Counted(9, rehearsed=5)), held, 7)
    assert isinstance(order, Blocks)
    assert (order.fresh, order.rehearsed, order.batch, order.seed) == (9, 5, 4, 7)
    assert [turn.rehearsed for turn in order.turns] == [False] * 3 + [True] * 2
    assert held.recurrence.turns == order.turns
    assert [p.numel() for p in held.recurrence.params] == [2, 3, 2, 3]


@pytest.mark.parametrize(
    ("train", "cut", "lines"),
    [
        ({"num_train_epochs": 1}, 0, []),
        ({"num_train_epochs": 1}, 3, ["a: 3 of 24 training texts were cut to --max-source-length"]),
        ({"per_device_train_batch_size": 24}, 0, ["a: 24 rows, 10 epochs of 1 step"]),
        ({"per_device_train_batch_size": 5}, 1, [
            "a: 24 rows, 10 epochs of 5 steps", "a: 1 of 24 training texts were cut to --max-source-length",
        ]),
    ],
)  # fmt: skip
def test_what_is_said_of_a_task_that_is_trained(
    train: dict[str, object], cut: int, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Counted(24)
    made.cut = cut  # type: ignore[attr-defined]
    held = SimpleNamespace(warnings=[], params=[], probe=None, predicted_rise=lambda: 0.5)
    monkeypatch.setattr(TaskTrainer, "chain", lambda self, model: held)
    monkeypatch.setattr(TaskTrainer, "rows", lambda *args: (made, None))
    monkeypatch.setattr("everlora.training.task_trainer.fit", lambda *args, **kwargs: [{"loss": 1.0}])
    one = trainer(**train)
    base = SimpleNamespace(family=None, precision=SimpleNamespace(device=torch.device("cpu")))
    one = replace(one, base=cast(Any, base), backend=cast(Any, SimpleNamespace(auxiliary_loss=lambda: None)))
    said: list[str] = []
    progress = SimpleNamespace(info=said.append, callbacks=())
    found = one.train(cast(Any, None), [], first=True, progress=cast(Any, progress))
    assert said == lines
    assert (found.log, found.cut, found.epochs) == ([{"loss": 1.0}], cut, one.epochs)
    assert (found.predicted_rise, found.as_taken().predicted_rise) == (None, 0.5), "a budget may still cut the update"


# --- orders ----------------------------------------------------------------------------------------------------------

few = st.integers(1, 7)


@given(st.lists(few, min_size=1, max_size=4), st.integers(0, 5))
def test_equal_shares_show_every_task_in_turn_and_all_rows_before_one_comes_again(sizes: list[int], seed: int) -> None:
    order = EqualShares(sizes, seed)
    found = list(order)
    assert len(found) == len(order) == len(sizes) * max(sizes)
    for task, size in enumerate(sizes):
        own = [row - sum(sizes[:task]) for row in found[task :: len(sizes)]]
        for k in range(0, len(own), size):
            part = own[k : k + size]
            assert len(set(part)) == len(part)
            assert set(part) <= set(range(size))
    assert list(order) == found


@given(few, few, few, few, few)
def test_blocks_show_full_steps_of_either_kind(fresh: int, rehearsed: int, batch: int, inner: int, outer: int) -> None:
    order = Blocks(fresh, rehearsed, batch=batch, inner=inner, outer=outer, seed=0)
    found = list(order)
    assert len(found) == len(order)
    steps = [found[k : k + batch] for k in range(0, len(found), batch)]
    assert [all(row >= fresh for row in step) for step in steps] == [turn.rehearsed for turn in order.turns]
    assert [any(row >= fresh for row in step) for step in steps] == [turn.rehearsed for turn in order.turns]
    new = [row for row in found if row < fresh]
    assert set(new) == set(range(fresh)), "an epoch is a pass over the new rows"
    assert len(new) == batch * -(-fresh // batch)
    assert max(found) < fresh + rehearsed
    order.set_epoch(1)
    assert len(list(order)) == len(order)


def test_every_epoch_has_an_order_of_its_own_from_the_seed() -> None:
    for make in (
        lambda seed: EqualShares([50], seed),
        lambda seed: Blocks(50, 9, batch=5, inner=2, outer=1, seed=seed),
    ):
        first = make(3)
        begin = list(first)
        first.set_epoch(1)
        again = make(3)
        assert list(again) == begin
        again.set_epoch(1)
        assert list(again) == list(first) != begin
        assert list(make(4)) != begin


class Noting:
    """A rule that writes down what it is shown and moves every weight to one."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def before(self, turn: Any, weights: torch.Tensor, gradient: torch.Tensor, state: Any) -> Any:
        self.seen.append((turn, weights.tolist(), gradient.tolist()))
        return {**state, "steps": state.get("steps", 0) + 1}

    def after(self, weights: torch.Tensor, state: Any) -> torch.Tensor:
        self.state = state
        return weights + torch.arange(len(weights), dtype=weights.dtype)


def test_a_rule_sees_one_vector_and_moves_it_where_a_block_closes() -> None:
    turns = Blocks(4, 2, batch=2, inner=2, outer=1, seed=0).turns
    p, q = torch.zeros(2), torch.ones(2, 1, dtype=torch.float64)
    q.grad = torch.full((2, 1), 5.0, dtype=torch.float64)
    runner = BlockRunner(cast(Any, rule := Noting()), turns, [p, q])
    for step in range(4):
        runner.before(step)
        runner.after(step, last=step == 3)
    assert [one[0] for one in rule.seen] == [*turns, turns[0]], "the next epoch begins anew"
    assert rule.seen[0][1:] == ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 5.0, 5.0])
    assert (p.tolist(), q.tolist()) == ([0.0, 1.0], [[3.0], [4.0]]), "moved once, and in place"
    assert rule.state["steps"] == 3


@pytest.mark.parametrize(("step", "moved"), [(0, False), (2, True), (3, True)])
def test_a_block_that_is_cut_short_is_closed_only_if_rows_were_rehearsed(step: int, moved: bool) -> None:
    turns = Blocks(4, 2, batch=2, inner=2, outer=2, seed=0).turns
    for last in (False, True):
        p = torch.zeros(2)
        BlockRunner(cast(Any, Noting()), turns, [p]).after(step, last=last)
        assert bool(p.any()) is (moved and (last or step == 3))
