"""One step of the gradient chain by hand: what is added, found, clipped, recorded and refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch

from everlora.core.errors import TrainingError
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import (
    AutoStrength,
    Budget,
    GradientTransform,
    Part,
    PenaltyGradient,
    PredictsRise,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import LowRank, Updates
from everlora.training.chain import Chain, ModuleRow
from everlora.training.group import ASCENT


@dataclass(frozen=True, kw_only=True)
class Pull(WeightPenalty):
    """Pulls A to 0 with half its square."""

    name: ClassVar[str] = "pull"
    lam: Strength = 2.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        A = live.A
        return PenaltyGradient(value=A.square().sum((-2, -1)) / 2, gradient={"A": A, "B": torch.zeros_like(live.B)})


@dataclass(frozen=True, kw_only=True)
class Predicting(Pull, PredictsRise):
    """Predicts with its value what two earlier tasks lose."""

    name: ClassVar[str] = "predicting"

    def earlier_tasks(self, state: State) -> int:
        return 2


@dataclass(frozen=True, kw_only=True)
class Endless(Pull):
    """Has a gradient that is infinite."""

    name: ClassVar[str] = "endless"

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        pull = super().value_and_grad(live, state)
        return replace(pull, gradient={**pull.gradient, "A": live.A + torch.inf})


@dataclass(frozen=True, kw_only=True)
class Back(GradientTransform):
    """Undoes half of every step, and leaves the gradient."""

    name: ClassVar[str] = "back"
    acts_on: ClassVar[str] = "update"

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def shape(self, gradient: State, state: State) -> State:
        return {key: change / 2 for key, change in gradient.items()}


def made(*parts: Part, max_norm: float = 0.0, every: int = 3, **options: Any) -> tuple[Chain, Updates, Any]:
    """A chain of modules a, b of one shape and c of another, with a head that is none; norms of A are 5, 0 and 3."""
    weights = {"a": ([[3.0, 4.0]], [[1.0]]), "b": ([[0.0, 0.0]], [[1.0]]), "c": ([[1.0, 2.0, 2.0]], [[1.0], [1.0]])}
    live: Any = {
        name: LowRank(*(torch.nn.Parameter(torch.tensor(x)) for x in pair), 1.0) for name, pair in weights.items()
    }
    head = torch.nn.Parameter(torch.zeros(1))
    penalties = tuple(part for part in parts if isinstance(part, WeightPenalty))
    transforms = tuple(part for part in parts if isinstance(part, GradientTransform))
    method = replace(parse("seqlora"), penalties=penalties, transforms=transforms)
    params = [head, *(p for one in live.values() for p in one.tensors.values())]
    chain = Chain.build(params, live, UpdateHistory(), method, task="news", max_norm=max_norm, every=every, **options)
    return chain, live, head


def step(chain: Chain, live: Any, head: Any, number: int = 0) -> None:
    """A step whose gradient has norms 10 and 24 in a and b, none in c, and 7 in the head."""
    for name, grad in {"a": [[6.0, 8.0]], "b": [[0.0, 24.0]], "c": [[0.0, 0.0, 0.0]]}.items():
        live[name].A.grad = torch.tensor(grad)
    head.grad = torch.tensor([7.0])
    chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=number), None)


def test_a_step_by_hand() -> None:
    """λ = 2 pulls with norms 10, 0 and 6, against a gradient of 26 on the adapters and of √725 in all."""
    chain, live, head = made(Pull())
    step(chain, live, head)
    assert chain.latest == pytest.approx(
        {
            "task_grad_norm": math.sqrt(725),
            "adapter_grad_norm": 26,
            "penalty/pull": 2 * (12.5 + 4.5),
            "rho": math.sqrt(136) / 26,
        }
    )
    assert [live[name].A.grad.tolist() for name in "abc"] == [[[12, 16]], [[0, 24]], [[2, 4, 4]]]
    assert all(live[name].B.grad is None for name in "abc")
    assert (head.grad.tolist(), chain.strengths(), chain.predicted_rise()) == ([7], {}, None)
    a, b, c = chain.records
    assert (a, b) == (ModuleRow(1, "a", 25, 1, 5), ModuleRow(1, "b", 0, 0, 0))
    assert (c.penalty, c.update_norm) == pytest.approx((9, math.sqrt(18)))
    assert c.rho > 1e20, "no gradient of the task's own"


def test_without_a_penalty_only_the_norm_is_noted() -> None:
    chain, live, head = made()
    step(chain, live, head)
    assert chain.latest == pytest.approx({"task_grad_norm": math.sqrt(725)})
    assert [(row.penalty, row.rho) for row in chain.records] == [(0, 0)] * 3


@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_modules_are_recorded_at_the_first_step_and_every_so_many(every: int) -> None:
    chain, live, head = made(Pull(), every=every)
    for number in range(7):
        step(chain, live, head, number)
    wanted = [k for k in range(1, 8) if k == 1 or k % max(1, every) == 0]
    assert [row.step for row in chain.records if row.module == "c"] == wanted


@pytest.mark.parametrize("parts", [(), (Pull(),)])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_the_sum_is_clipped_as_a_whole(parts: tuple[Part, ...], max_norm: float) -> None:
    """Norms 20, 24, 6 and 7 with the penalty, 10, 24 and 7 without."""
    chain, live, head = made(*parts, max_norm=max_norm)
    step(chain, live, head)
    norm = math.sqrt(400 + 576 + 36 + 49) if parts else math.sqrt(725)
    by = 0.5 / norm if max_norm == 0.5 else 1.0
    assert float(head.grad) == pytest.approx(7 * by)
    assert live["b"].A.grad.flatten().tolist() == pytest.approx([0, 24 * by])
    assert live["a"].A.grad.flatten().tolist() == pytest.approx([12 * by, 16 * by] if parts else [6 * by, 8 * by])


def test_one_strength_is_found_over_all_groups_from_the_first_step_on() -> None:
    chain, live, head = made(Pull(lam=AutoStrength(rho=0.1)), calibration=3.0)
    step(chain, live, head)
    found = 0.1 * 26 / math.sqrt(34)
    assert chain.strengths() == pytest.approx({"pull": found})
    assert chain.latest["lam/pull"] == pytest.approx(found)
    assert chain.latest["rho"] == pytest.approx(0.1)
    assert live["c"].A.grad[0, 0].item() == pytest.approx(found)
    with torch.no_grad():
        live["c"].A.mul_(0)
    step(chain, live, head, 1)
    assert chain.strengths() == pytest.approx({"pull": 0.1 * 52 / (math.sqrt(34) + 5)})


def test_every_module_may_find_its_own_strength() -> None:
    chain, live, head = made(Pull(lam=AutoStrength(rho=0.1, per_module=True)))
    step(chain, live, head)
    assert chain.strengths() == {"pull": pytest.approx({"a": 0.1 * 10 / 5, "b": 0.0, "c": 0.0})}
    assert "lam/pull" not in chain.latest, "a log holds numbers alone"
    assert live["a"].A.grad[0].tolist() == pytest.approx([6 + 0.2 * 3, 8 + 0.2 * 4])


def test_a_prediction_is_held_against_the_budget_of_all_earlier_tasks() -> None:
    chain, live, head = made(Pull(lam=Budget(nats=4.0)), Predicting(lam=0.0), calibration=2.0)
    step(chain, live, head)
    assert chain.latest["predicted_rise"] == 17
    assert chain.predicted_rise() == 17
    assert chain.controllers["pull"].price == pytest.approx(ASCENT * (2 * 17 / 8 - 1))
    assert chain.controllers["predicting"].price == 0
    assert chain.strengths().keys() == {"pull"}


def test_what_is_not_finite_says_whose_fault_it_is() -> None:
    chain, live, head = made(Pull(), Endless())
    with pytest.raises(TrainingError) as caught:
        step(chain, live, head, 4)
    assert str(caught.value) == (
        "the penalty's gradient became NaN or infinite at step 5 of task 'news'; tasks learned before are intact; "
        "lower the strength of endless, pull (of a budget, raise its nats), or --lora-alpha"
    )
    head.grad = torch.tensor([torch.nan])
    with pytest.raises(TrainingError, match="the loss became NaN or infinite at step 6 of task 'news'"):
        chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=5), None)


def test_the_step_taken_is_shaped_and_the_gradient_is_not() -> None:
    chain, live, head = made(Back())
    for number in range(2):
        step(chain, live, head, number)
        assert live["a"].A.grad.tolist() == [[6, 8]]
        with torch.no_grad():
            live["a"].A.add_(2)
            head.add_(2)
        chain.on_optimizer_step(None, SimpleNamespace(global_step=number, max_steps=9), None)
    assert (live["a"].A.tolist(), live["b"].A.tolist(), head.tolist()) == ([[5, 6]], [[0, 0]], [4])


def test_probe_and_rule_are_shown_the_number_of_the_step() -> None:
    seen: list[Any] = []
    chain, live, head = made()
    chain.probe = cast(Any, SimpleNamespace(show=lambda groups, number: seen.append(("probe", len(groups), number))))
    chain.recurrence = cast(
        Any,
        SimpleNamespace(
            before=lambda number: seen.append(("before", number)),
            after=lambda number, last: seen.append(("after", number, last)),
        ),
    )
    for number in range(2):
        step(chain, live, head, number)
        chain.on_optimizer_step(None, SimpleNamespace(global_step=number, max_steps=2), None)
    assert seen == [
        *(("before", 0), ("probe", 2, 1), ("after", 0, False)),
        *(("before", 1), ("probe", 2, 2), ("after", 1, True)),
    ]


def test_only_the_adapters_parameters_count_for_the_share() -> None:
    chain, live, head = made(Pull())
    assert {id(p) for p in chain.adapter} == {id(p) for one in live.values() for p in one.tensors.values()}
    assert chain.params[0] is head
    assert [group.names for group in chain.groups] == [("a", "b"), ("c",)]


@dataclass(frozen=True, kw_only=True)
class Noting(Pull):
    """Writes down what it is prepared with."""

    name: ClassVar[str] = "noting"
    seen: ClassVar[list[TaskContext]] = []

    def prepare(self, before: TaskContext) -> State | None:
        self.seen.append(before)
        return None


def test_parts_are_prepared_group_by_group() -> None:
    Noting.seen.clear()
    _, live, _ = made()
    start = {name: one.map(lambda t: t.detach() + 1) for name, one in live.items()}
    memory = {"noting": {name: {"x": torch.tensor(float(ord(name)))} for name in "abc"}}
    chain, _, _ = made(Noting(), start=start, memory=memory)
    first, second = Noting.seen
    assert (first.updates, second.updates) == ((), ())
    assert first.start is not None
    assert second.start is not None
    assert first.start.A.tolist() == [[[4, 5]], [[1, 1]]]
    assert second.start.A.tolist() == [[[2, 3, 3]]]
    assert (first.memory, second.memory) == (
        {"x": pytest.approx(torch.tensor([97.0, 98.0]))},
        {"x": pytest.approx(torch.tensor([99.0]))},
    )
    assert first.seed != second.seed
    assert all(not group.penalties for group in chain.groups), "what has no constants has nothing to do"
    made(Noting())
    assert (Noting.seen[2].start, Noting.seen[2].memory) == (None, {})
    assert Noting.seen[2].seed == first.seed
