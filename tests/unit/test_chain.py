"""What stands between backward and the optimiser, on one pair: pulls, clipping, figures, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch

from everlora.core.errors import TrainingError
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import AutoStrength, PenaltyGradient, State, Strength, TaskContext, WeightPenalty
from everlora.core.updates import LowRank
from everlora.training.chain import Chain


@dataclass(frozen=True, kw_only=True)
class Pull(WeightPenalty):
    """Pulls A to 0 with half its square."""

    name: ClassVar[str] = "pull"
    lam: Strength = 2.0
    factor: float = 1.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        A = self.factor * live.A
        return PenaltyGradient(value=A.square().sum((-2, -1)) / 2, gradient={"A": A, "B": torch.zeros_like(live.B)})


def chain(*parts: WeightPenalty, modules: int = 1, task_gradient: float = 0.3, **more: Any) -> Chain:
    """Modules with A = (0.4) and B = (0), whose gradients are 0 and ``task_gradient``, and a head that has none."""
    live = {f"m{k}": LowRank(torch.full((1, 1), 0.4), torch.zeros(1, 1)) for k in range(modules)}
    method = parse("inclora")
    object.__setattr__(method, "penalties", parts)
    tensors: Any = [t.requires_grad_() for one in live.values() for t in one.tensors.values()]
    head: Any = torch.zeros(1, requires_grad=True)
    given = {"max_norm": 0.0, "every": 2, **more}
    found = Chain.build([*tensors, head], live, UpdateHistory(), method, task="news", **given)
    for one in live.values():
        one.A.grad, one.B.grad = torch.zeros(1, 1), torch.full((1, 1), task_gradient)
    return found


def step(one: Chain, number: int) -> None:
    one.on_pre_optimizer_step(None, SimpleNamespace(global_step=number - 1), None)


def test_the_figures_of_a_step_are_those_of_its_gradients() -> None:
    one = chain(Pull())
    step(one, 1)
    # The pull on A is 2 · 0.4, against a task's gradient of 0.3 on B: 8/3 of it.
    assert one.latest == pytest.approx(
        {"task_grad_norm": 0.3, "adapter_grad_norm": 0.3, "penalty/pull": 2 * 0.08, "rho": 0.8 / 0.3}
    )
    assert [float(p.grad) for p in one.adapter] == pytest.approx([0.8, 0.3])
    (row,) = one.records
    assert (row.step, row.module) == (1, "m0")
    assert (row.penalty, row.rho, row.update_norm) == pytest.approx((0.16, 0.8 / 0.3, 0.0))


def test_a_share_of_a_gradient_of_nothing_is_large_and_finite() -> None:
    one = chain(Pull(), task_gradient=0.0)
    step(one, 1)
    assert one.latest["rho"] == pytest.approx(0.8e20)
    assert one.records[0].rho == pytest.approx(0.8e20)


@pytest.mark.parametrize(("every", "steps"), [(0, [1, 2, 3, 4, 5, 6]), (1, [1, 2, 3, 4, 5, 6]), (3, [1, 3, 6])])
def test_modules_are_recorded_at_the_first_step_and_now_and_then(every: int, steps: list[int]) -> None:
    one = chain(Pull(), modules=2, every=every)
    for number in range(1, 7):
        step(one, number)
    assert [row.step for row in one.records if row.module == "m1"] == steps
    assert len(one.records) == 2 * len(steps)


def test_without_penalties_only_the_task_is_measured() -> None:
    one = chain()
    step(one, 1)
    assert one.latest == pytest.approx({"task_grad_norm": 0.3})
    assert [row.rho for row in one.records] == [0.0]
    assert one.predicted_rise() is None


def test_strengths_that_are_found_are_told_and_given_ones_are_not() -> None:
    shared, own = AutoStrength(rho=0.5), AutoStrength(rho=0.5, per_module=True)
    one, each, given = (chain(Pull(lam=lam), modules=2) for lam in (shared, own, 1.0))
    for found in (one, each, given):
        step(found, 1)
    assert one.strengths() == pytest.approx({"pull": 0.5 * 0.3 / 0.4})
    assert one.latest["lam/pull"] == pytest.approx(0.375)
    assert each.strengths()["pull"] == pytest.approx({"m0": 0.375, "m1": 0.375})
    assert given.strengths() == {}
    assert not [name for found in (each, given) for name in found.latest if name.startswith("lam/")]


@pytest.mark.parametrize(("max_norm", "norm"), [(0.0, 0.73**0.5), (1.0, 0.73**0.5), (0.5, 0.5)])
def test_the_whole_gradient_is_clipped_once(max_norm: float, norm: float) -> None:
    one = chain(Pull(), max_norm=max_norm)
    step(one, 1)
    found = torch.cat([cast(torch.Tensor, p.grad).flatten() for p in one.adapter])
    assert float(found.norm()) == pytest.approx(norm)
    assert float(found[0] / found[1]) == pytest.approx(8 / 3)


def test_a_step_that_would_spoil_what_was_learned_is_refused() -> None:
    none = chain(Pull())
    for p in none.params:
        p.grad = None
    with pytest.raises(TrainingError, match="no parameter has a gradient at step 4 of task 'news'"):
        step(none, 4)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(
            TrainingError,
            match=r"the loss became NaN or infinite at step 4 of task 'news'.*lower --learning-rate or --lora-alpha,",
        ):
            step(chain(Pull(), task_gradient=bad), 4)
        with pytest.raises(
            TrainingError, match=r"penalty's gradient became NaN or infinite at step 4.*strength of pull"
        ):
            step(chain(Pull(factor=bad)), 4)
