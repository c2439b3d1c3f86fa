"""EWC's quadratic against its worked example, autograd and plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calculus import by_autograd, draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.core.roles import AutoStrength, Evidence, TaskContext
from everlora.core.updates import LowRank, Weights, stack
from everlora.methods.inclora import inclora
from everlora.methods.seqft import seqft
from everlora.parts.quadratic import Quadratic, pooled, quadratic
from everlora.training.memory import remember

ONE = {"fisher.w": torch.tensor([[2.0, 0.5]]), "anchor.w": torch.tensor([[0.0, 1.0]])}


def test_the_worked_example() -> None:
    pull = Quadratic(lam=400).value_and_grad(Weights({"w": torch.tensor([[1.0, 3.0]])}), ONE)
    assert (400 * pull.value).tolist() == [800.0]
    assert (400 * pull.gradient["w"]).tolist() == [[800.0, 400.0]]


def test_the_gradient_is_autograds() -> None:
    theta, anchor, fisher = draw(0, (3, 4, 5), (3, 4, 5), (3, 4, 5))
    fisher = fisher.square()
    value, by_rule = by_autograd(lambda x: (fisher * (x - anchor).square()).sum((-2, -1)) / 2, theta)
    found, gradient = quadratic(theta, anchor, fisher)
    torch.testing.assert_close(found, value, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, by_rule, rtol=1e-10, atol=1e-12)


def test_what_one_adapter_remembers_grows_from_task_to_task() -> None:
    """Online with γ: F ← γ F + F_new, though one adapter is trained on and on."""
    (theta,), one, two = draw(3, (2, 5)), draw(4, (2, 5))[0].square(), draw(5, (2, 5))[0].square()
    update, held = {"q": Weights({"w": theta})}, {}
    for seen in (one, two):
        held = remember(
            [Quadratic(gamma=0.5)],
            held,
            update,
            continued=True,
            look=lambda _, F=seen: {"q": Evidence(fisher={"w": F})},
        )
    torch.testing.assert_close(held["quadratic"]["q"]["fisher.w"], 0.5 * one + two)


@pytest.mark.parametrize("sigma", [False, True])
def test_all_tensors_of_a_place_are_pulled(sigma: bool) -> None:
    """Pairs and triplets, two places in a stack: what is live may be of either form."""

    def site(seed: int) -> LowRank:
        A, B, s = draw(seed, (2, 5), (4, 2), (2, 1))
        return LowRank(A, B, 3.0, s if sigma else None)

    start, live = ([site(seed), site(seed + 1)] for seed in (1, 7))
    fishers = [{key: t.square() for key, t in site(seed).tensors.items()} for seed in (20, 21)]
    part = Quadratic()
    kept = [part.remember(s, {}, Evidence(fisher=seen)) for s, seen in zip(start, fishers, strict=True)]
    memory = {key: torch.stack([one[key] for one in kept]) for key in kept[0]}
    state = part.prepare(TaskContext(start=stack(start), memory=memory))
    assert state is not None
    pull = part.value_and_grad(stack(live), state)
    for k in range(2):
        expected = 0.0
        for key, F in fishers[k].items():
            apart = live[k].tensors[key] - start[k].tensors[key]
            torch.testing.assert_close(pull.gradient[key][k], F * apart, rtol=1e-10, atol=1e-12)
            expected += float((F * apart.square()).sum() / 2)
        assert float(pull.value[k]) == pytest.approx(expected, rel=1e-10)
    assert pull.gradient.keys() == start[0].tensors.keys()


@given(st.integers(0, 1000), st.integers(1, 5))
def test_per_task_is_the_sum_of_all_quadratics(seed: int, tasks: int) -> None:
    """Kept as two tensors, and yet every task's own; entries that no task needs among them."""
    thetas = draw(seed, *[(3, 4)] * tasks)
    fishers = [F.square() for F in draw(seed + 1, *[(3, 4)] * tasks)]
    for F in fishers:
        F[0, 0] = 0
    part, memory = Quadratic(form="per-task"), {}
    for theta, F in zip(thetas, fishers, strict=True):
        memory = part.remember(Weights({"w": theta}), memory, Evidence(fisher={"w": F}))
    assert {key: t.shape for key, t in memory.items()} == {"fisher.w": (3, 4), "anchor.w": (3, 4)}
    stacked = {key: t[None] for key, t in memory.items()}
    state = part.prepare(TaskContext(start=Weights({"w": thetas[-1][None]}), memory=stacked))
    assert state is not None
    live, other = draw(seed + 2, (3, 4), (3, 4))

    def all_of_them(x: torch.Tensor) -> torch.Tensor:
        return sum((F * (x - theta).square()).sum() / 2 for theta, F in zip(thetas, fishers, strict=True))  # type: ignore[return-value]

    _, by_rule = by_autograd(all_of_them, live)
    pull, there = (part.value_and_grad(Weights({"w": x[None]}), state) for x in (live, other))
    torch.testing.assert_close(pull.gradient["w"][0], by_rule, rtol=1e-9, atol=1e-10)
    # The value lacks a constant.
    torch.testing.assert_close(
        pull.value[0] - there.value[0], all_of_them(live) - all_of_them(other), rtol=1e-8, atol=1e-9
    )


def test_pooling_by_hand() -> None:
    F, m = pooled(*(torch.tensor([x]) for x in (1.0, 0.0, 3.0, 4.0)))
    assert (F.item(), m.item()) == (4.0, 3.0)
    F, m = pooled(*(torch.tensor([x]) for x in (0.0, 3.0, 0.0, 7.0)))
    assert (F.item(), m.item()) == (0.0, 7.0), "where neither weighs anything, the newest place"


def test_online_forgets_by_gamma_and_holds_the_newest_place() -> None:
    part = Quadratic(gamma=0.5)
    memory = part.remember(Weights({"w": torch.ones(2)}), {}, Evidence(fisher={"w": torch.tensor([4.0, 0.0])}))
    memory = part.remember(Weights({"w": torch.zeros(2)}), memory, Evidence(fisher={"w": torch.tensor([1.0, 2.0])}))
    assert memory.keys() == {"fisher.w"}
    assert memory["fisher.w"].tolist() == [3.0, 2.0]
    start = Weights({"w": torch.zeros(1, 2)})
    state = part.prepare(TaskContext(start=start, memory={"fisher.w": memory["fisher.w"][None]}))
    assert state is not None
    live = Weights({"w": torch.ones(1, 2)})
    assert part.value_and_grad(live, state).gradient["w"].tolist() == [[3.0, 2.0]]
    assert part.value_and_grad(start, state).value.tolist() == [0.0]


def test_on_the_first_task_there_is_no_pull() -> None:
    assert Quadratic().prepare(TaskContext()) is None
    assert Quadratic().prepare(TaskContext(memory={"fisher.w": torch.ones(1, 2)})) is None
    assert Quadratic().prepare(TaskContext(start=Weights({"w": torch.ones(1, 2)}))) is None


def test_options() -> None:
    assert parse("ewc").penalties[0].strength == 400
    assert parse("ewc").policy == "continue: one adapter for all tasks"
    assert parse("ewc(lam=auto, rho=0.1)").penalties[0].strength == AutoStrength(rho=0.1)
    assert parse("ewc(on=all)").adapter == seqft().adapter
    assert parse("ewc(gamma=0.9)").penalties[0] == Quadratic(gamma=0.9)
    for wrong in ("samples=0", "lam=-1", "gamma=1.5", "form=per-task,gamma=0.5", "on=head", "rho=0.1", "lam=nan"):
        with pytest.raises(ConfigError):
            parse(f"ewc({wrong})")
    with pytest.raises(ConfigError, match="trains a fresh adapter for every task"):
        Method(name="own", adapter=inclora().adapter, penalties=(Quadratic(),))
    with pytest.raises(ConfigError, match="exclude one another"):
        parse("ewc+inclora")


@pytest.mark.parametrize("form", ["online", "per-task"])
def test_memory_is_as_large_as_it_says(form: Any) -> None:
    part, held = Quadratic(form=form), {}
    for seed in range(2):
        A, B, on_A, on_B = draw(seed, (2, 5), (4, 2), (2, 5), (4, 2), dtype=torch.float32)
        held = part.remember(LowRank(A, B), held, Evidence(fisher={"A": on_A.square(), "B": on_B.square()}))
        assert sum(tensor.nbytes for tensor in held.values()) == part.memory_bytes(4, 5, 2, seed + 1)
