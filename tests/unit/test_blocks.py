"""Blocks of steps on two parameters by hand: what a rule is shown, when a block is closed, what it moves."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from everlora.core.roles import BlockStep, State
from everlora.core.roles.blocks import plan
from everlora.training.blocks import BlockRunner

NEW, OLD = BlockStep(rehearsed=False, opens=True), BlockStep(rehearsed=True)
LAST = BlockStep(rehearsed=True, closes=True)


class Rule:
    """Notes what it is shown, and adds 1 to all weights when a block is over."""

    def __init__(self) -> None:
        self.seen: list[tuple[BlockStep, list[float], list[float], list[float]]] = []
        self.closed: list[list[float]] = []

    def before(self, turn: BlockStep, weights: Tensor, gradient: Tensor, state: State) -> State:
        self.seen.append((turn, weights.tolist(), gradient.tolist(), [float(t) for t in state.values()]))
        return {"steps": state.get("steps", torch.zeros(1)) + 1}

    def after(self, weights: Tensor, state: State) -> Tensor:
        self.closed.append([*weights.tolist(), float(state["steps"])])
        return weights + 1


def runner() -> tuple[BlockRunner, Rule, list[Any]]:
    params: list[Any] = [torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([3.0], requires_grad=True)]
    params[0].grad = torch.tensor([[4.0, 5.0]])
    rule = Rule()
    return BlockRunner(rule=cast(Any, rule), turns=(NEW, OLD, LAST), params=params), rule, params


def test_a_rule_sees_all_as_one_vector_and_its_own_state() -> None:
    one, rule, _ = runner()
    for step in range(4):
        one.before(step)
    turns = [turn for turn, *_ in rule.seen]
    assert turns == [NEW, OLD, LAST, NEW], "the steps of an epoch come round again"
    assert {tuple(weights) for _, weights, _, _ in rule.seen} == {(1.0, 2.0, 3.0)}
    assert {tuple(gradient) for _, _, gradient, _ in rule.seen} == {(4.0, 5.0, 0.0)}
    assert [state for *_, state in rule.seen] == [[], [1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    ("step", "last", "closes"),
    [(0, False, False), (1, False, False), (2, False, True), (0, True, False), (1, True, True)],
)
def test_a_block_is_closed_by_its_last_step_or_where_training_ends_in_rehearsal(
    step: int, last: bool, closes: bool
) -> None:
    one, rule, params = runner()
    one.before(step)
    places = [p.data_ptr() for p in params]
    with torch.no_grad():
        one.after(step, last=last)
    assert rule.closed == ([[1.0, 2.0, 3.0, 1.0]] if closes else [])
    assert [p.flatten().tolist() for p in params] == ([[2.0, 3.0], [4.0]] if closes else [[1.0, 2.0], [3.0]])
    assert [p.data_ptr() for p in params] == places, "the optimiser's tensors are moved in place"


def letters(steps: int, inner: int, outer: int) -> str:
    """N a step on new rows, R on rehearsed ones; ( opens a block, / turns it to rehearsed rows, ) closes it."""
    return "".join(
        "(" * step.opens + "/" * step.turns + ("R" if step.rehearsed else "N") + ")" * step.closes
        for step in plan(steps, inner, outer)
    )


@pytest.mark.parametrize(
    ("steps", "inner", "outer", "laid"),
    [
        (4, 2, 1, "(NN/R)(NN/R)"),
        (3, 2, 2, "(NN/RR)(N/RR)"),
        (2, 5, 3, "(NN/RRR)"),
        (3, 1, 1, "(N/R)(N/R)(N/R)"),
        (0, 2, 1, ""),
    ],
)
def test_a_plan_by_hand(steps: int, inner: int, outer: int, laid: str) -> None:
    assert letters(steps, inner, outer) == laid


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_every_block_opens_turns_and_closes_once(steps: int, inner: int, outer: int) -> None:
    laid = letters(steps, inner, outer)
    blocks = -(-steps // inner)
    assert [laid.count(mark) for mark in "(/)NR"] == [blocks] * 3 + [steps, blocks * outer]
