"""Recurrent-KIF: importance, masks, shares, and the fusion of a block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlora.core.roles import plan
from everlora.parts.fusion import Fusion, fused, hard, important, smoothed, soft

T = torch.tensor


def test_the_worked_example():
    shares = hard(T([True, True, False, False]), T([True, False, True, False]))
    zero, ones = torch.zeros(4), torch.ones(4)
    out = fused(zero, ones, 3 * ones, shares)  # δ_in = 1, δ_out = 2
    torch.testing.assert_close(out, T([1.6, 1.0, 2.0, 1.5]))


def test_shares_by_hand():
    mine, theirs = hard(T([True, True, False, False]), T([True, False, True, False]))
    torch.testing.assert_close(mine, T([0.4, 1.0, 0.0, 0.5]))
    torch.testing.assert_close(theirs, T([0.6, 0.0, 1.0, 0.5]))


@given(st.integers(0, 999))
def test_half_the_way_where_nothing_is_important(seed):
    start, middle, end = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    none = torch.zeros(7, dtype=torch.bool)
    torch.testing.assert_close(fused(start, middle, end, hard(none, none)), (start + end) / 2)


def test_averages_by_hand():
    mean, spread = smoothed(T([2.0]), T([1.0]), T([6.0]), 0.75, 0.5)
    assert float(mean) == 0.75 * 2 + 0.25 * 6 == 3.0
    assert float(spread) == 0.5 * 1 + 0.5 * (6 - 3)


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=60),
    st.one_of(st.floats(0, 0.999), st.sampled_from([0.1, 0.2, 0.29, 0.5, 0.7, 0.8])),
)
def test_important_is_above_the_quantile(values, quantile):
    """The same weights as with torch.quantile, ties included: no score lies between two neighbours."""
    score = T([float(v) for v in values], dtype=torch.float64)
    rank = quantile * (len(values) - 1)
    if abs(rank - round(rank)) < 1e-6 and rank != round(rank):
        return  # the interpolation itself is a matter of rounding
    assert important(score, quantile).tolist() == (score > torch.quantile(score, quantile)).tolist()


def test_a_fifth_is_important_at_the_default():
    score = torch.randperm(1001).double()
    assert int(important(score, 0.8).sum()) == 200
    assert not important(torch.zeros(50), 0.8).any()


def test_soft_shares():
    new, old = T([0.0, 2.0, 4.0]), T([3.0, 1.0, 1.0])
    mine, theirs = soft(new, old, 0.5)
    a, b = T([0.0, 0.5, 1.0]) / 0.5, T([1.0, 0.0, 0.0]) / 0.5
    torch.testing.assert_close(mine, a.exp() / (a.exp() + b.exp()))
    torch.testing.assert_close(mine + theirs, torch.ones(3))
    torch.testing.assert_close(soft(7 * new + 1, 0.1 * old, 0.5)[0], mine)  # the scores' scales have no meaning
    torch.testing.assert_close(soft(torch.ones(3), torch.zeros(3), 1.0)[0], T([0.5, 0.5, 0.5]))
    cold = soft(new, old, 1e-3)[0]
    torch.testing.assert_close(cold, T([0.0, 1.0, 1.0]))


def run(rule, steps, seed=0, size=400):
    """A made-up training: random steps; returns what was there before and after every step, and the end."""
    draw = torch.Generator().manual_seed(seed)
    weights, state, seen = torch.randn(size, generator=draw), {}, []
    for turn in plan(steps, rule.inner, rule.outer):
        gradient = torch.randn(size, generator=draw)
        state = rule.before(turn, weights, gradient, state)
        seen.append((turn, weights.clone(), gradient))
        weights = weights + 0.1 * torch.randn(size, generator=draw)
        if turn.closes:
            seen.append((None, weights.clone(), None))
            weights = rule.after(weights, state)
    return seen, weights


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_two_blocks_against_a_plain_loop(reset, smooth):
    rule = Fusion(inner=3, outer=2, quantile=0.6, beta1=0.7, beta2=0.9, reset_outer=reset, soft=smooth)
    seen, end = run(rule, 5)  # blocks of 3 + 2 and of 2 + 2 steps
    begin = middle = new = spread = old = spread_old = torch.zeros(400)
    for turn, weights, gradient in seen:
        if turn is None:
            score, score_old = new * spread, old * spread_old
            if smooth:
                unit, unit_old = ((s - s.min()) / (s.max() - s.min()) for s in (score, score_old))
                mine = torch.stack([unit, unit_old]).softmax(0)[0]
                theirs = 1 - mine
            else:
                a, b = (s > torch.quantile(s, 0.6) for s in (score, score_old))
                table = {(1, 0): (1.0, 0.0), (0, 1): (0.0, 1.0), (1, 1): (0.4, 0.6), (0, 0): (0.5, 0.5)}
                mine, theirs = T([table[int(x), int(y)] for x, y in zip(a, b, strict=True)]).T
            expected = begin + mine * (middle - begin) + theirs * (weights - middle)
            continue
        if turn.opens:
            if turn is not seen[0][0]:
                torch.testing.assert_close(weights, expected)
            begin, new, spread = weights, torch.zeros(400), torch.zeros(400)
            if reset:
                old = spread_old = torch.zeros(400)
        if turn.turns:
            middle = weights
        size = (weights * gradient).abs()
        if turn.rehearsed:
            old = 0.7 * old + 0.3 * size
            spread_old = 0.9 * spread_old + 0.1 * (size - old).abs()
        else:
            new = 0.7 * new + 0.3 * size
            spread = 0.9 * spread + 0.1 * (size - new).abs()
    torch.testing.assert_close(end, expected)


def test_what_is_remembered_of_the_memory_matters():
    kept, cleared = (run(Fusion(inner=2, outer=2, quantile=0.5, reset_outer=reset), 4)[1] for reset in (False, True))
    assert not torch.equal(kept, cleared)


def test_importance_is_the_change_of_the_loss_when_a_weight_is_dropped():
    """To first order: why weight and gradient must be of one point."""
    draw = torch.Generator().manual_seed(3)
    matrix = torch.randn(5, 5, generator=draw, dtype=torch.float64)

    def loss(w):
        return (matrix @ w).square().sum()

    w = torch.randn(5, generator=draw, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(w), w)
    turn = plan(1, 1, 1)[0]
    size = Fusion(beta1=0.0).before(turn, w.detach(), gradient, {})["new"]
    for k in range(5):
        less = w.detach().clone()
        less[k] *= 1 - 1e-6
        torch.testing.assert_close((loss(less) - loss(w.detach())).abs() / 1e-6, size[k], rtol=1e-4, atol=1e-6)
