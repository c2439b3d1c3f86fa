"""What a group of modules computes in one step: snapshots, sums of penalties, memory that is stacked, transforms."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

import pytest
import torch

from calculus import draw
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import (
    AutoStrength,
    Budget,
    GradientTransform,
    Needs,
    PenaltyGradient,
    PredictsRise,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import LowRank, Weights
from everlora.parts.forms_dual import POOLS, Orthonormality
from everlora.training import group
from everlora.training.chain import Chain
from everlora.training.group import (
    ASCENT,
    NOTHING,
    OVERDRAWN,
    Group,
    Snapshot,
    StrengthController,
    WeightedPenalty,
    acting,
    norms,
    predicted_rise,
    whole_norm,
)
from everlora.training.memory import by_memory, stacked


def modules(count: int = 2) -> list[LowRank]:
    """Live modules of one shape, with a gradient on A and none on B."""
    drawn = draw(0, *[(2, 5), (4, 2), (2, 5)] * count, dtype=torch.float32)
    made = [LowRank(drawn[3 * k].requires_grad_(), drawn[3 * k + 1].requires_grad_(), 0.5) for k in range(count)]
    for k, one in enumerate(made):
        one.A.grad = drawn[3 * k + 2]
    return made


@dataclass(frozen=True, kw_only=True)
class Pull(WeightPenalty):
    """Pulls A to 0 with half its square."""

    name: ClassVar[str] = "pull"
    lam: Strength = 1.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        return PenaltyGradient(
            value=live.A.square().sum((-2, -1)) / 2, gradient={"A": live.A, "B": torch.zeros_like(live.B)}
        )


@dataclass(frozen=True, kw_only=True)
class Predicting(Pull, PredictsRise):
    """Predicts with its value what two earlier tasks lose."""

    name: ClassVar[str] = "predicting"

    def earlier_tasks(self, state: State) -> int:
        return 2


@dataclass(frozen=True, kw_only=True)
class Halving(GradientTransform):
    """Halves what it shapes, or takes the factor of the step."""

    name: ClassVar[str] = "halving"
    on: Literal["gradient", "update", "both"] = "gradient"

    @property
    def acts_on(self) -> Literal["gradient", "update", "both"]:
        return self.on

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def shape(self, gradient: State, state: State) -> State:
        return {key: change * float(state.get("factor", 0.5)) for key, change in gradient.items()}


def test_a_snapshot_holds_copies_and_zeros_where_there_is_no_gradient() -> None:
    live = modules()
    snapshot = Snapshot(live[0], {"A": [m.A for m in live], "B": [m.B for m in live]})
    weights, gradient = snapshot.weights, snapshot.gradient
    assert weights.scale == 0.5
    for k, one in enumerate(live):
        assert one.A.grad is not None
        torch.testing.assert_close(gradient["A"][k], one.A.grad)
        torch.testing.assert_close(weights.A[k], one.A.detach())
        assert torch.equal(gradient["B"][k], torch.zeros_like(one.B))
    with torch.no_grad():
        before = weights.A.clone()
        live[0].A.add_(1)
    assert torch.equal(snapshot.weights.A, before)
    low = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    for given in (None, torch.ones(2, dtype=torch.bfloat16)):
        low.grad = given
        found = Snapshot(Weights({"w": low}), {"w": [low]}).gradient["w"]
        assert (found.dtype, found.tolist()) == (torch.float32, [[0.0, 0.0] if given is None else [1.0, 1.0]])


def test_norms_are_over_all_tensors_of_a_module() -> None:
    assert norms({"A": torch.tensor([[[3.0]], [[0.0]]]), "B": torch.tensor([[[4.0]], [[2.0]]])}).tolist() == [5.0, 2.0]
    p, q, r = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    assert float(whole_norm([p, q])) == 0.0
    p.grad, q.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert float(whole_norm([p, q, r])) == 5.0


def test_penalties_are_summed_each_times_its_strength() -> None:
    live = modules()
    group = Group(("a", "b"), live)
    none = group.weigh([])
    assert none.gradient is None
    assert (none.value.tolist(), none.norms.tolist(), dict(none.by_part)) == ([0.0, 0.0], [0.0, 0.0], {})
    group.penalties = [(Pull(lam=3.0), {}), (Predicting(lam=0.5), {})]
    group.controllers = {part.name: StrengthController.of(part) for part, _ in group.penalties}
    with pytest.raises(ValueError, match="shorter"):
        group.weigh(group.penalise()[:1])
    pull = group.weigh(group.penalise())
    each = torch.stack([m.A.detach().square().sum() / 2 for m in live])
    torch.testing.assert_close(pull.value, 3.5 * each)
    assert pull.gradient is not None
    torch.testing.assert_close(pull.gradient["A"], 3.5 * torch.stack([m.A.detach() for m in live]))
    torch.testing.assert_close(pull.norms, 3.5 * torch.stack([m.A.detach().norm() for m in live]))
    assert pull.by_part == pytest.approx({"pull": 3 * float(each.sum()), "predicting": float(each.sum()) / 2})
    assert WeightedPenalty(torch.zeros(2), {"A": torch.ones(2, 1, 4)}, {}).norms.tolist() == [2.0, 2.0]


def test_what_parameters_get_is_the_tasks_gradient_and_the_penalties_both_shaped() -> None:
    for transforms in ([], [(Halving(), {})], [(Halving(on="both"), {})], [(Halving(on="update"), {})]):
        live = modules()
        group, own = Group(("a", "b"), live), [cast(Any, m.A.grad).clone() for m in live]
        group.transforms = list(transforms)
        on_gradient = any(transform.acts_on != "update" for transform, _ in transforms)
        assert group.acting("gradient") is on_gradient
        assert group.acting("update") is (bool(transforms) and transforms[0][0].acts_on != "gradient")
        group.shape({"A": torch.ones(2, 2, 5), "B": torch.ones(2, 4, 2)})
        factor = 0.5 if on_gradient else 1.0
        for one, given in zip(live, own, strict=True):
            torch.testing.assert_close(one.A.grad, factor * (given + 1))
            assert one.B.grad is None, "a factor that is held fixed stays so"


def test_constants_of_the_step_stand_in_for_those_of_the_task() -> None:
    group = Group(("a", "b"), modules())
    group.transforms = [(Halving(), {})]
    change = {"A": torch.full((2, 2, 5), 4.0)}
    assert float(group.transformed([change], "gradient")[0]["A"].mean()) == 2.0
    group.now = {"halving": {"factor": torch.tensor(0.25)}}
    assert float(group.transformed([change], "gradient")[0]["A"].mean()) == 1.0
    assert float(group.transformed([change], "update")[0]["A"].mean()) == 4.0


def test_the_step_of_the_optimiser_is_shaped_in_place() -> None:
    live = modules()
    group = Group(("a", "b"), live)
    group.transforms = [(Halving(on="update"), {})]
    start = [m.A.detach().clone() for m in live]
    assert torch.equal(group.before.weights.A[0], start[0])
    group.end_gradient()
    with torch.no_grad():
        for one in live:
            one.A.add_(1)
        group.shape_update()
    for one, before in zip(live, start, strict=True):
        torch.testing.assert_close(one.A.detach(), before + 0.5)
    torch.testing.assert_close(group.before.weights.A[1], live[1].A.detach())


def test_which_penalties_act() -> None:
    on, off, auto = Pull(lam=0.1), Pull(lam=0.0), Pull(lam=AutoStrength(rho=0))
    budget, predicts = Pull(lam=Budget(nats=0.1)), Predicting(lam=0.0)
    assert acting((on, off, auto, predicts)) == [on]
    assert acting((budget, off, predicts)) == [budget, predicts]


def test_a_budget_raises_its_price_by_the_excess_and_never_below_nothing() -> None:
    controller = StrengthController.of(Pull(lam=Budget(nats=0.1)))
    controller.spend(0.1, tasks=2)  # half of what is allowed
    assert (controller.price, controller.allowed) == (0.0, pytest.approx(0.2))
    controller.spend(0.6, tasks=2)
    assert controller.price == pytest.approx(ASCENT * 2)
    controller.spend(100.0, tasks=2)
    assert controller.price == pytest.approx(ASCENT * (2 + OVERDRAWN))
    controller.update(torch.tensor(6.0), torch.tensor(2.0))
    assert float(controller.lam) == pytest.approx(controller.price * 3)
    itself = StrengthController.of(Predicting(lam=Budget(nats=0.1)))
    assert (itself.predicts, controller.predicts, float(itself.lam)) == (True, False, 0.0)
    itself.spend(0.4, tasks=2)
    assert float(itself.lam) == pytest.approx(ASCENT / 0.2)
    plain = StrengthController.of(Pull(lam=2.0))
    plain.spend(9.0, tasks=1)
    assert (plain.price, plain.allowed, plain.found, controller.found) == (0.0, 0.0, False, True)
    assert (ASCENT, OVERDRAWN, NOTHING) == (0.02, 4.0, 1e-30), "others change the numbers of every run"


def test_a_penalty_without_a_gradient_has_no_found_strength() -> None:
    controller = StrengthController(AutoStrength(rho=0.5))
    controller.update(torch.tensor([1.0, 1.0]), torch.tensor([NOTHING / 2, 4.0]))
    assert controller.lam.tolist() == [0.0, 0.125]
    edge = StrengthController(AutoStrength(rho=0.5))
    edge.update(torch.tensor(1.0), torch.tensor(NOTHING))
    assert float(edge.lam) == 0, "of this norm it is still none"


def test_modules_are_split_by_the_shapes_of_their_memory() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    memories = {"p": {"a": {"x": one, "y": two}, "b": {"y": two, "x": one}, "c": {"x": two, "y": two}}, "q": {}}
    assert list(by_memory("abcd", memories)) == [("a", "b"), ("c",), ("d",)]
    assert list(by_memory("abcd", {"p": {}})) == [("a", "b", "c", "d")]
    assert stacked({"a": {"x": one}, "b": {"x": one + 1}}, "ab")["x"].tolist() == [[0.0], [1.0]]
    assert stacked({"a": {"x": two}}, "a")["x"].tolist() == [[0.0, 0.0]]
    assert stacked({}, "ab") == {}


def test_predictions_are_summed_over_groups_and_modules() -> None:
    def group(*parts: WeightPenalty) -> Any:
        return SimpleNamespace(penalties=[(part, {}) for part in parts])

    found = [[PenaltyGradient(value=torch.tensor([1.0, 2.0]), gradient={})] * 2] * 2
    groups = [group(Pull(), Predicting())] * 2
    assert predicted_rise(groups, found) == (6.0, 2)
    assert predicted_rise([group(Pull(), Pull())] * 2, found) == (0.0, 0)
    for odd in (found[:1], [found[0], found[1][:1]]):
        with pytest.raises(ValueError, match="shorter"):
            predicted_rise(groups, odd)
    for some in (found[:1], [found[0][:1]] * 2):
        with pytest.raises(ValueError, match="shorter"):
            predicted_rise(groups, some)


def test_a_group_is_where_its_modules_are() -> None:
    for device in ("cpu", "meta"):
        one = LowRank(torch.empty(2, 5, device=device), torch.empty(4, 2, device=device), 1.0)
        assert Group(("a",), [one]).device.type == device
        assert Group(("a",), [one]).weigh([]).value.device.type == device


@pytest.mark.parametrize(
    ("tensors", "acts"), [((), True), (("A",), True), (("A", "B"), True), (("A", "C"), False), (("C",), False)]
)
def test_a_part_acts_where_all_tensors_that_it_needs_are_trained(tensors: tuple[str, ...], acts: bool) -> None:
    kind = dataclass(frozen=True, kw_only=True)(type("Needing", (Pull,), {"needs": Needs(tensors=tensors)}))
    method = parse("inclora")
    object.__setattr__(method, "penalties", (kind(),))
    live = {"a": modules(1)[0]}
    params = cast(Any, list(live["a"].tensors.values()))
    chain = Chain.build(params, live, UpdateHistory(), method, task="t", max_norm=1.0, every=1)
    assert bool(chain.groups[0].penalties) is acts
    assert (chain.every, chain.adapter == params) == (1, True)


def test_a_penalty_that_looks_at_all_modules_is_given_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates' penalty is a mean over modules, which in blocks would be a mean over the block."""
    monkeypatch.setattr(group, "BLOCK", 1)
    part, draw_of = Orthonormality(), torch.Generator().manual_seed(0)
    live = Weights({name: torch.randn(5, 3, 8, generator=draw_of) for name in POOLS})
    state = {name: torch.randn(5, 2, 8, generator=draw_of) for name in POOLS}
    whole, found = part.value_and_grad(live, state), group.by_blocks(part, live, state)
    assert torch.equal(whole.value, found.value)
    assert all(torch.equal(whole.gradient[name], found.gradient[name]) for name in POOLS)
