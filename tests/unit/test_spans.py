"""Directions that a growing past uses are counted as its decomposition counts them, and are not decomposed again."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from everlora.analysis import spans
from everlora.analysis.holdings import measure_holdings
from everlora.analysis.ranks import numerical_rank, over_modules
from everlora.analysis.spans import Used, used_directions
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, concatenate
from everlora.parts.subspace import free

SHAPES = [(9, 14), (14, 9), (11, 11)]


def update(seed: int, shape: tuple[int, int], rank: int = 2, sigma: bool = False) -> LowRank:
    draw, (out, into) = torch.Generator().manual_seed(seed), shape
    A, B = torch.randn(rank, into, generator=draw), 1e-2 * torch.randn(out, rank, generator=draw)
    return LowRank(A, B, 0.5, torch.rand(rank, 1, generator=draw) + 0.1 if sigma else None)


def directly(past: UpdateHistory) -> Used:
    (out, into), all_of_it = past.deltas[0]["q"].shape, [task["q"] for task in past]
    left_out, left_in = map(int, free(all_of_it))
    return Used(out - left_out, into - left_in, numerical_rank(past.factors("q")))


def follow(updates: list[LowRank]) -> list[Used]:
    """Count after each update, as it comes, and hold every count against the direct one."""
    past, found = UpdateHistory(), list[Used]()
    for one in updates:
        past = past.append({"q": one})
        found.append(used_directions(past, "q"))
        assert found[-1] == directly(past), f"after {len(past)} tasks"
    assert used_directions(UpdateHistory(past.deltas), "q") == found[-1], "as of a learner that was just opened"
    return found


@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_task_adds_its_directions_until_a_side_is_full(shape: tuple[int, int], sigma: bool) -> None:
    found = follow([update(seed, shape, sigma=sigma) for seed in range(10)])
    assert [(one.out, one.into) for one in found] == [
        (min(shape[0], 2 * t), min(shape[1], 2 * t)) for t in range(1, 11)
    ]
    assert [one.rank for one in found] == [min(*shape, 2 * t) for t in range(1, 11)]


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_that_come_again_are_counted_once(shape: tuple[int, int]) -> None:
    one, other, third = (update(seed, shape) for seed in range(3))
    mixed = LowRank(one.A, other.B, 2.0)
    twice = [one, other, mixed, one, third, mixed, *(update(seed, shape) for seed in range(3, 9))]
    assert follow(twice)[2] == Used(4, 4, 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_adds_nothing_uses_nothing(shape: tuple[int, int]) -> None:
    still = LowRank(update(0, shape).A, torch.zeros(shape[0], 2))
    assert follow([still])[0] == Used(0, 2, 0)
    follow([update(1, shape), still, *(update(seed, shape) for seed in range(2, 9))])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("many", [2, 9])
def test_updates_that_cancel_leave_the_rank_of_what_is_left(shape: tuple[int, int], many: int) -> None:
    some = [update(seed, shape) for seed in range(many)]
    gone = [LowRank(one.A, one.B, -one.scale) for one in reversed(some[1:])]
    assert follow([*some, *gone])[-1].rank == 2
    follow([*some, *gone, *(update(seed, shape) for seed in range(20, 25))])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("falls", [[1e-2], [1e-3], [1e-5], [1e-2] * 4])
def test_a_full_sum_may_fall_at_once_or_by_and_by(shape: tuple[int, int], falls: list[float]) -> None:
    """What is left has the rank of what joined last, or all of it where each fall leaves a part of the sum."""
    some, share, later = [update(seed, shape, 4) for seed in range(8)], 1.0, list[LowRank]()
    all_of_it = concatenate(some)
    for fall in falls:
        later.append(LowRank(all_of_it.A, all_of_it.B, -share * (1 - fall)))
        share *= fall
    assert follow([*some, *later])[-1].rank == min(shape)
    small = concatenate([LowRank(all_of_it.A, -all_of_it.B), LowRank(falls[0] * some[0].A[:1], some[1].B[:, :1])])
    assert follow([*some, small, update(20, shape, 1)])[-2].rank == 1


@pytest.mark.parametrize("off", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("shape", SHAPES)
def test_updates_that_almost_undo_each_other(shape: tuple[int, int], off: float) -> None:
    one = update(0, shape)
    near = [(one.A + off * update(seed, shape).A, one.B + off * update(seed, shape).B) for seed in range(1, 12)]
    follow([one, *(LowRank(A, (-1) ** (k + 1) * B, one.scale) for k, (A, B) in enumerate(near))])


@pytest.mark.parametrize("small", [1e-3, 1e-4, 1e-5, 1e-7])
def test_small_updates_count_by_the_same_thresholds(small: float) -> None:
    """From 1e-6 of the largest a direction is one of a side, and about the width times 1e-7 of the sum."""
    first, later = update(0, (9, 14)), update(1, (9, 14))
    for scaled in (
        LowRank(later.A, small * later.B),
        LowRank(small * later.A, later.B),
        LowRank(later.A, later.B, small),
    ):
        follow([first, scaled, *(update(seed, (9, 14)) for seed in range(2, 8))])


def test_ranks_may_differ_from_task_to_task() -> None:
    follow([update(seed, (12, 17), rank) for seed, rank in enumerate([1, 4, 2, 5, 3, 6])])


def test_two_histories_that_go_on_from_one_are_counted_apart() -> None:
    start = UpdateHistory(({"q": update(0, (9, 14))},))
    used_directions(start, "q")
    one, other = start.append({"q": update(0, (9, 14))}), start.append({"q": update(1, (9, 14))})
    assert [used_directions(past, "q") for past in (one, other, one)] == [directly(past) for past in (one, other, one)]


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every decomposition that grows with the past."""
    calls: list[str] = []
    for name in ("svd", "svdvals", "qr", "eigh", "eigvalsh", "inv"):
        act = getattr(torch.linalg, name)
        monkeypatch.setattr(
            torch.linalg, name, lambda *a, _n=name, _act=act, **more: calls.append(_n) or _act(*a, **more)
        )
    monkeypatch.setattr(spans, "numerical_rank", lambda *_: calls.append("rank"))
    return calls


def test_a_task_costs_what_its_own_directions_cost(decomposed: list[str]) -> None:
    """Nothing is decomposed, factors of r columns are found, and the products are of r columns with the earlier R."""
    past, products, factors = UpdateHistory(), list[int](), list[tuple[int, ...]]()
    factor = spans.cholesky_ex
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "cholesky_ex", lambda X: factors.append(tuple(X.shape)) or factor(X))
        for seed in range(12):
            past = past.append({"q": update(seed, (60, 80), rank=4)})
            with FlopCounterMode(display=False) as counter:
                used_directions(past, "q")
            products.append(counter.get_total_flops())
    assert decomposed == []
    assert set(factors) == {(4, 4)}
    assert len(factors) == 2 * 12
    each = [after - before for before, after in itertools.pairwise(products)]
    assert max(each) == min(each), "one more task adds the same to what every later one costs"


def test_what_a_learner_holds_is_measured_as_all_at_once() -> None:
    past = UpdateHistory()
    for task in range(5):
        past = past.append({name: update(7 * task + k, SHAPES[k]) for k, name in enumerate(("q", "k", "v"))})
        found = measure_holdings(parse("inclora"), past, {}, 0)
        assert found.rank == over_modules([numerical_rank(past.factors(name)) for name in past.sites])
        assert found.room is not None
        for one in found.room.modules:
            left = map(int, free([delta[one.module] for delta in past]))
            shares = [n / of for n, of in zip(left, past.deltas[0][one.module].shape, strict=True)]
            assert one.free == min(shares)
