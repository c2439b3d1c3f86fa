"""Blocks of steps: some on new rows, then some on rehearsed ones, laid out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.core.roles.blocks import plan


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
