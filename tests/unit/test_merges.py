"""Rules that make one weight of many: hand-made examples, algebra, chance."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from everlora.adapters.folded import FoldedBase
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import LowRank
from everlora.parts.merges import Dare, LargestMagnitude, Mean, Ties, drop, larger, ties, trim

ONE = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
TWO = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
THREE = torch.tensor([[-1.0, 3.0], [0.0, 2.0]])
RULES: list[Merge] = [LargestMagnitude(), Mean(), Ties(density=0.5), Dare(), Dare(elect=True)]
often = settings(max_examples=100, deadline=None, derandomize=True)


@st.composite
def distinct(draw: st.DrawFn) -> list[Tensor]:
    """Two to five matrices of one shape, of which no two entries are equally large."""
    o, i, count = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(2, 5))
    source = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    magnitudes = 1 + torch.randperm(count * o * i, generator=source).float()
    signs = torch.where(torch.rand(count * o * i, generator=source) < 0.5, -1.0, 1.0)
    return list((magnitudes * signs).view(count, o, i))


# --- the larger survives ---------------------------------------------------------------------------------------------


def test_the_worked_example() -> None:
    rule = LargestMagnitude()
    assert rule.merge([ONE]).tolist() == ONE.tolist()
    assert rule.merge([ONE, TWO]).tolist() == [[1.0, -1.0], [2.0, -2.0]]
    assert rule.merge([ONE, TWO, THREE]).tolist() == [[-1.0, 3.0], [2.0, 2.0]]


def test_of_two_equally_large_entries_the_newest_wins() -> None:
    rule = LargestMagnitude()
    assert larger(ONE, THREE)[0, 0] == rule.merge([THREE, ONE])[0, 0] == 1
    assert larger(THREE, ONE)[0, 0] == rule.merge([ONE, THREE])[0, 0] == -1
    assert rule.merge([ONE, THREE, ONE])[0, 0] == 1


@often
@given(distinct())
def test_the_merge_is_the_entry_of_largest_magnitude_in_any_order_and_grouping(updates: list[Tensor]) -> None:
    rule = LargestMagnitude()
    merged = rule.merge(updates)
    whole = torch.stack(updates)
    best = whole.gather(0, whole.abs().argmax(0, keepdim=True))[0]
    assert torch.equal(merged, best)
    for order in list(permutations(updates))[:24]:
        assert torch.equal(rule.merge(order), merged)
    a, b, c = updates[0], updates[1], updates[-1]
    assert torch.equal(larger(c, larger(b, a)), larger(larger(c, b), a))
    assert torch.equal(larger(a, a), a)
    assert torch.equal(rule.merge([merged, *updates]), merged)
    zero = torch.zeros_like(a)
    assert torch.equal(larger(a, zero), a)
    assert torch.equal(larger(zero, a), a)


@often
@given(distinct())
def test_the_norm_of_the_merge_lies_between_the_largest_and_all(updates: list[Tensor]) -> None:
    squares = [float(update.square().sum()) for update in updates]
    assert max(squares) <= float(LargestMagnitude().merge(updates).square().sum()) <= sum(squares)


# --- mean ------------------------------------------------------------------------------------------------------------


def test_the_mean_is_the_mean() -> None:
    torch.testing.assert_close(Mean().merge([ONE, TWO, THREE]), torch.stack([ONE, TWO, THREE]).mean(0))
    assert torch.equal(Mean().merge([ONE]), ONE)


# --- TIES ------------------------------------------------------------------------------------------------------------


def test_trimming_keeps_the_largest_of_each_matrix() -> None:
    whole = torch.tensor([[4.0, -3.0], [2.0, -1.0]])
    assert trim(whole, 0.5).tolist() == [[4.0, -3.0], [0.0, 0.0]]
    assert trim(whole, 0.99).tolist() == [[4.0, -3.0], [2.0, 0.0]]
    assert torch.equal(trim(whole, 1.0), whole)
    assert not trim(whole, 0.2).any()
    stacked = torch.stack([whole, 100 * whole.flip(0)])  # every module by itself
    assert torch.equal(trim(stacked, 0.5), torch.stack([trim(each, 0.5) for each in stacked]))


@pytest.mark.parametrize(("density", "kept"), [(0.29, 29), (0.57, 57), (0.1, 10), (0.295, 29)])
def test_a_density_in_decimals_counts_as_written(density: float, kept: int) -> None:
    """0.29 · 100 is 28.999999999999996 in floating point."""
    assert int(trim(torch.arange(1.0, 101.0).view(10, 10), density).count_nonzero()) == kept


def test_ties_by_hand() -> None:
    """Trim to half, elect signs by the sum, average those who agree."""
    a = torch.tensor([[6.0, -4.0, 1.0], [2.0, 5.0, 0.5]])
    b = torch.tensor([[-2.0, -6.0, 1.0], [0.5, -5.0, 3.0]])
    c = torch.tensor([[4.0, 1.0, 0.5], [-3.0, 0.0, -5.0]])
    # Trimmed: a = [6 −4 0 | 0 5 0], b = [0 −6 0 | 0 −5 3], c = [4 0 0 | −3 0 −5]; the sums 10, −10, 0 | −3, 0, −2.
    expected = [[5.0, -5.0, 0.0], [-3.0, 5.0, -5.0]]
    assert Ties(density=0.5).merge([a, b, c]).tolist() == expected
    assert ties([a, b, c], 0.5).tolist() == expected


def test_a_sum_of_zero_elects_plus() -> None:
    a = torch.tensor([[2.0, -3.0]])
    assert ties([a, -a], 1.0).tolist() == [[2.0, 3.0]]


@often
@given(distinct(), st.integers(1, 4))
def test_equal_updates_are_a_fixed_point_of_ties(updates: list[Tensor], count: int) -> None:
    one = updates[0]
    torch.testing.assert_close(ties([one] * count, 1.0), one)
    torch.testing.assert_close(ties([one] * count, 0.6), trim(one, 0.6))


@often
@given(distinct(), st.sampled_from([0.3, 0.7, 1.0]))
def test_ties_is_the_loop_of_the_paper(updates: list[Tensor], density: float) -> None:
    trimmed = [trim(update, density) for update in updates]
    found = ties(iter(updates), density)
    for x, y in ((x, y) for x in range(found.shape[0]) for y in range(found.shape[1])):
        entries = [float(update[x, y]) for update in trimmed]
        sign = 1 if sum(entries) >= 0 else -1
        agreeing = [entry for entry in entries if entry * sign > 0]
        assert float(found[x, y]) == pytest.approx(sum(agreeing) / max(len(agreeing), 1), rel=1e-6)


# --- DARE ------------------------------------------------------------------------------------------------------------


def test_dropping_keeps_or_rescales() -> None:
    (found,) = [drop(torch.full((50, 40), 3.0), 0.25, torch.Generator().manual_seed(0))]
    assert sorted(found.unique().tolist()) == [0.0, 12.0]


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_is_unbiased(density: float) -> None:
    """The mean over n seeds is off by at most 5 standard errors, entry by entry: √(x² (1 − p) / (p n)) each."""
    updates = [torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -0.25]]), torch.tensor([[2.0, 2.0, -1.0], [0.1, 5.0, 4.0]])]
    n = 4000
    merged = torch.stack([Dare(density=density, seed=seed).merge(updates).double() for seed in range(n)])
    error = (sum(u.double().square() for u in updates) * (1 - density) / density / n).sqrt()
    off = (merged.mean(0) - sum(updates)).abs()
    assert (off <= 5 * error).all()
    assert (off > 0).any()
    # And the spread is that of independent masks: neither entries nor tasks share a coin.
    torch.testing.assert_close(merged.var(0), n * error.square(), rtol=0.2, atol=1e-12)
    together = torch.corrcoef(merged.flatten(1).T)
    assert float((together - torch.eye(6)).abs().max()) < 5 / n**0.5


@pytest.mark.parametrize("elect", [False, True])
def test_dare_is_settled_by_seed_task_and_shape(elect: bool) -> None:
    updates = [torch.ones(20, 30), -2 * torch.ones(20, 30), 4 * torch.ones(20, 30)]
    state = torch.random.get_rng_state()
    one, again = (Dare(elect=elect).merge(updates) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(one, Dare(elect=elect, seed=1).merge(updates))
    if not elect:  # a task more leaves the masks of those before as they were
        last = one - Dare().merge(updates[:2])
        assert sorted(last.unique().tolist()) == [0.0, 8.0]


def test_at_density_one_dare_is_the_sum_and_with_election_ties() -> None:
    updates = [ONE, TWO, THREE]
    assert torch.equal(Dare(density=1.0).merge(updates), sum(updates))
    assert torch.equal(Dare(density=1.0, elect=True).merge(updates), ties(updates, 1.0))


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_updates_may_come_one_at_a_time_and_stacked(rule: Merge) -> None:
    source = torch.Generator().manual_seed(0)
    updates = [torch.randn(4, 6, generator=source) for _ in range(3)]
    kept = [update.clone() for update in updates]
    merged = rule.merge(updates)
    assert torch.equal(rule.merge(iter(updates)), merged)
    assert torch.equal(rule.merge(update for update in updates), merged)
    assert all(torch.equal(a, b) for a, b in zip(updates, kept, strict=True))
    assert merged.shape == (4, 6)
    if not isinstance(rule, Dare):  # whose masks depend on the shape
        stacked = rule.merge(torch.stack([update, 2 * update]) for update in updates)
        torch.testing.assert_close(stacked, torch.stack([merged, 2 * merged]))


@pytest.mark.parametrize("rule", [LargestMagnitude(), Mean()], ids=str)
def test_a_streaming_merge_holds_a_few_updates_and_not_all(rule: Merge) -> None:
    alive = Alive()

    def updates() -> Iterator[Tensor]:
        for seed in range(12):
            yield alive.watch(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)))

    rule.merge(updates())
    assert alive.most <= 3


class Alive:
    """Counts tensors that somebody still holds."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0

    def watch(self, tensor: Tensor) -> Tensor:
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self.gone)
        return tensor

    def gone(self) -> None:
        self.now -= 1


@pytest.mark.parametrize("make", [Ties, Dare])
@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_a_density_is_a_share(make: Callable[..., Merge], density: float) -> None:
    with pytest.raises(ConfigError, match=r"density.*above 0 and at most 1"):
        make(density=density)
    with pytest.raises(ConfigError, match=r"density.*above 0 and at most 1"):
        parse(f"{make.__name__.lower()}(density={density})")


def test_low_rank_updates_merge_to_more_than_their_ranks() -> None:
    source = torch.Generator().manual_seed(0)
    updates = [LowRank(torch.randn(1, 8, generator=source), torch.randn(8, 1, generator=source)) for _ in range(2)]
    assert int(torch.linalg.matrix_rank(LargestMagnitude().merge(u.dense() for u in updates))) > 2


# --- of the newest alone ---------------------------------------------------------------------------------------------


def test_a_merge_that_is_associative_is_made_of_the_newest_and_is_the_same_bit_for_bit() -> None:
    drawn, history = random_updates(6), UpdateHistory()
    merge, looked = LargestMagnitude(), list[int]()
    for number, one in enumerate(drawn, start=1):
        history = history.append({"q": Looked(one.A, one.B, one.scale, None, looked)})
        looked.clear()
        found = history.merged("q", merge)
        assert len(looked) == 1, "one dense update"
        assert torch.equal(found, merge.merge(each.dense() for each in drawn[:number]))


@pytest.mark.parametrize("merge", [Mean(), Ties(), Dare()])
def test_other_merges_are_made_of_all_updates(merge: Merge) -> None:
    drawn = random_updates(3)
    history = UpdateHistory(tuple({"q": one} for one in drawn))
    assert torch.equal(history.merged("q", merge), merge.merge(one.dense() for one in drawn))


def random_updates(count: int) -> list[LowRank]:
    random = torch.Generator().manual_seed(0)
    shapes = ((2, 7), (5, 2))
    return [LowRank(*(torch.randn(shape, generator=random) for shape in shapes), scale=0.5) for _ in range(count)]


@dataclass(frozen=True)
class Looked(LowRank):
    """Counts how often its dense matrix is made."""

    looked: list[int] = field(default_factory=list)

    def map(self, change: Callable[[Tensor], Tensor]) -> Looked:
        return Looked(change(self.A), change(self.B), self.scale, None, self.looked)

    def holding(self, tensors: Mapping[str, Tensor]) -> Looked:
        return Looked(tensors["A"], tensors["B"], self.scale, None, self.looked)

    def dense(self) -> Tensor:
        self.looked.append(1)
        return super().dense()


@pytest.mark.parametrize("fold", [True, False])
def test_a_sum_after_a_merge_is_the_sum_as_if_there_had_been_none(fold: bool) -> None:
    """As a learner alternates: trained on the sum, answered by the merge; tasks come and are taken away."""
    torch.manual_seed(0)
    weight, drawn, merge = torch.randn(5, 7), random_updates(5), LargestMagnitude()

    def layer() -> FoldedBase:
        made = torch.nn.Linear(7, 5, bias=False)
        made.weight.data.copy_(weight)
        return FoldedBase.of(made, "fold" if fold else "factors")

    through, x = layer(), torch.randn(3, 7)
    for number in (1, 2, 3, 4, 2, 3, 5):
        fresh, joined = layer(), merge.merge(one.dense() for one in drawn[:number])
        fresh.set_past(drawn[:number])
        through.set_past(drawn[:number])
        assert torch.equal(through.layer(x), fresh.layer(x))
        through.set_past(drawn[:number], joined, sum_again=number != 3)
        torch.testing.assert_close(through.layer(x), x @ (weight + joined).T)
