from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from calculus import draw
from everlora.core.updates import (
    LowRank,
    PenaltyGradient,
    Weights,
    concatenate,
    difference,
    groups,
    nearest,
    precise,
    sketched,
    stack,
    top_blocks,
    truncated,
)


def site(seed: int, r: int = 2, o: int = 7, i: int = 5, scale: float = 4.0, *lead: int) -> LowRank:
    source = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(*lead, r, i, generator=source), torch.randn(*lead, o, r, generator=source), scale)


def triplets(seed: int, r: int = 2, o: int = 7, i: int = 5, scale: float = 4.0, *lead: int) -> LowRank:
    """The same with a σ of both signs."""
    plain = site(seed, r, o, i, scale, *lead)
    return LowRank(plain.A, plain.B, scale, draw(seed, (*lead, r, 1), dtype=torch.float32)[0])


def test_dense_is_the_sum_over_ranks_times_the_scale() -> None:
    one = site(0, scale=0.5)
    dense = one.dense()
    for x in range(7):
        for y in range(5):
            expected = 0.5 * sum(float(one.B[x, a]) * float(one.A[a, y]) for a in range(2))
            assert float(dense[x, y]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (one.rank, one.shape, one.numel) == (2, (7, 5), 2 * (7 + 5))


@pytest.mark.parametrize("make", [site, triplets])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_norm_from_factors_is_the_norm_of_the_dense_update(
    lead: tuple[int, ...], make: Callable[..., LowRank]
) -> None:
    one = make(1, 3, 11, 6, 2.5, *lead)
    assert one.norm().shape == lead
    torch.testing.assert_close(one.norm(), one.dense().norm(dim=(-2, -1)), rtol=1e-6, atol=0)


def test_norm_of_nothing_is_zero_and_not_nan() -> None:
    """Rounding can make the sum of products slightly negative; its root must not be NaN."""
    assert float(LowRank(torch.randn(2, 5), torch.zeros(7, 2)).norm()) == 0
    # Two columns that cancel: BA = 0 although neither factor is. One in a hundred sums comes out below zero.
    for seed in range(300):
        source = torch.Generator().manual_seed(seed)
        row, column = torch.randn(1, 50, generator=source), torch.randn(30, 1, generator=source)
        A, B = torch.cat([row, 3 * row]).double(), torch.cat([column, -column.double() / 3], dim=1).double()
        assert float(LowRank(A, B).norm()) < 1e-5 * float(row.norm() * column.norm())  # NaN is not less


def test_half_precision_factors_multiply_in_fp32() -> None:
    tiny = LowRank(torch.full((1, 4), 1e-4, dtype=torch.float16), torch.full((3, 1), 1e-4, dtype=torch.float16))
    entry = float(torch.tensor(1e-4, dtype=torch.float16).double()) ** 2  # below 6e-8, the least number of fp16
    assert tiny.dense().dtype == torch.float32
    torch.testing.assert_close(tiny.dense(), torch.full((3, 4), entry), rtol=1e-6, atol=0)
    assert float(tiny.norm()) == pytest.approx(entry * 12**0.5, rel=1e-6)


def test_absorbing_the_scale_changes_nothing() -> None:
    one = site(2)
    whole = one.absorb_scale()
    assert whole.scale == 1.0
    assert torch.equal(whole.A, one.A)
    torch.testing.assert_close(whole.dense(), one.dense())


def test_concatenation_is_the_sum_of_the_updates_and_not_the_product_of_sums() -> None:
    parts = [site(3, r=2, scale=4.0), site(4, r=3, scale=0.5), site(5, r=2, scale=1.0)]
    whole = concatenate(parts)
    assert (whole.rank, whole.scale) == (7, 1.0)
    torch.testing.assert_close(whole.dense(), sum(p.dense() for p in parts), rtol=1e-5, atol=1e-5)
    same = [parts[0], parts[2]]
    crossed = sum(p.absorb_scale().B for p in same) @ sum(p.A for p in same)
    difference = (crossed - concatenate(same).dense()).norm()
    assert difference > 0.5 * concatenate(same).dense().norm()


def test_concatenation_of_stacks() -> None:
    parts = [site(6, 2, 7, 5, 4.0, 3), site(7, 1, 7, 5, 2.0, 3)]
    whole = concatenate(parts)
    assert whole.A.shape == (3, 3, 5)
    assert whole.B.shape == (3, 7, 3)
    torch.testing.assert_close(whole.dense(), parts[0].dense() + parts[1].dense(), rtol=1e-5, atol=1e-5)


def test_a_stack_holds_its_members_in_order() -> None:
    parts = [site(k) for k in range(3)]
    whole = stack(parts)
    assert whole.A.shape == (3, 2, 5)
    assert (whole.rank, whole.shape) == (2, (7, 5))
    for k, part in enumerate(parts):
        assert torch.equal(whole.A[k], part.A)
        assert torch.equal(whole.B[k], part.B)
        # Batched and single products need not round alike.
        torch.testing.assert_close(whole.dense()[k], part.dense(), rtol=1e-6, atol=1e-6)


UNLIKE = [site(1, r=3), site(1, o=8), site(1, i=6), site(1, scale=2.0), triplets(1)]


@pytest.mark.parametrize("other", UNLIKE, ids=["r", "o", "i", "scale", "form"])
def test_unlike_updates_are_not_stacked(other: LowRank) -> None:
    with pytest.raises(ValueError, match="one shape, rank, scale and form"):
        stack([site(0), other])
    assert groups({"a": site(0), "b": other}) == [("a",), ("b",)]


def test_groups_keep_order_and_cover_every_module_once() -> None:
    sites = {"a": site(0), "b": site(1, o=8), "c": site(2), "d": site(3, scale=2.0), "e": site(4, o=8)}
    assert groups(sites) == [("a", "c"), ("b", "e"), ("d",)]
    for names in groups(sites):
        assert stack([sites[n] for n in names]).A.shape[0] == len(names)
    assert groups({}) == []


# --- triplets --------------------------------------------------------------------------------------------------------


def test_the_triplets_of_an_update_add_up() -> None:
    one = triplets(5, scale=0.5)
    assert one.sigma is not None
    by_hand = sum(0.5 * float(one.sigma[j]) * torch.outer(one.B[:, j], one.A[j]) for j in range(2))
    torch.testing.assert_close(one.dense(), by_hand)
    assert (one.rank, one.shape, one.numel) == (2, (7, 5), 2 * (7 + 5 + 1))
    assert list(one.tensors) == ["A", "B", "sigma"]
    for same in (one.absorb_scale(), concatenate([one])):
        assert same.sigma is None
        torch.testing.assert_close(same.dense(), by_hand)


def test_triplets_stack_change_and_concatenate_with_their_sigma() -> None:
    parts = [triplets(k) for k in range(3)]
    whole = stack(parts)
    assert whole.sigma is not None
    assert whole.sigma.shape == (3, 2, 1)
    for k, part in enumerate(parts):
        torch.testing.assert_close(whole.dense()[k], part.dense())
    doubled = parts[0].map(lambda tensor: 2 * tensor)
    torch.testing.assert_close(doubled.dense(), 8 * parts[0].dense())
    mixed = concatenate([parts[0], site(9)])
    torch.testing.assert_close(mixed.dense(), parts[0].dense() + site(9).dense(), rtol=1e-5, atol=1e-5)


def test_what_was_trained_on_is_the_difference() -> None:
    for old, new in ((site(1, scale=2.0), site(2, scale=4.0)), (triplets(1), triplets(2, r=3))):
        change = difference(new, old)
        assert change.rank == new.rank + old.rank
        torch.testing.assert_close(change.dense(), new.dense() - old.dense(), rtol=1e-5, atol=1e-5)
        assert float(difference(new, new).dense().abs().max()) < 1e-5


@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_gradient_of_a_pair_becomes_that_of_triplets(lead: tuple[int, ...]) -> None:
    """A penalty of the plain pair (A, B diag σ), here Σ w ⊙ (B diag σ) A, differentiated by torch on U, σ and V."""
    A, B, sigma, weight = draw(3, (*lead, 2, 5), (*lead, 7, 2), (*lead, 2, 1), (*lead, 7, 5))
    live = LowRank(*(tensor.requires_grad_() for tensor in (A, B)), sigma=sigma.requires_grad_())
    value = (weight * (live.up @ live.A)).sum((-2, -1))
    value.sum().backward()
    with torch.no_grad():
        of_pair = live.up.mT @ weight, weight @ live.A.mT
    found = PenaltyGradient.through(live, value, *of_pair)
    assert found.value is value
    for tensor, gradient in ((A, found.A), (B, found.B), (sigma, found.sigma)):
        assert gradient is not None
        torch.testing.assert_close(gradient, tensor.grad)
        assert not gradient.requires_grad
    plain = LowRank(A, B)
    whole = PenaltyGradient.through(plain, value, A, B)
    assert (list(whole.gradient), whole.sigma) == (["A", "B"], None)


def test_checks_in_fp64_stay_in_fp64() -> None:
    A, B, sigma = draw(1, (2, 5), (7, 2), (2, 1))
    one = LowRank(A, B, 0.5, sigma)
    assert one.dense().dtype == precise(one.A.float()).dtype == torch.float64
    assert one.norm().dtype == torch.float32
    torch.testing.assert_close(one.dense(), 0.5 * B @ torch.diag(sigma.flatten()) @ A)


# --- what is no low-rank update --------------------------------------------------------------------------------------


def test_weights_are_counted_changed_and_measured_together() -> None:
    both = Weights({"weight": torch.full((2, 3), 2.0), "bias": torch.full((5,), -1.0)})
    assert both.numel == 11
    assert float(both.norm()) == pytest.approx((6 * 4 + 5) ** 0.5)
    assert float(both.map(lambda tensor: 3 * tensor).norm()) == pytest.approx(3 * 29**0.5)
    other = both.holding({"weight": torch.zeros(1)})
    assert (other.numel, list(other.tensors), both.numel) == (1, ["weight"], 11)
    half = Weights({"weight": torch.full((64, 64), 64.0, dtype=torch.float16)})
    assert float(half.norm()) == 64.0 * 64.0  # its square is beyond fp16
    assert groups({"a": both, "b": both.map(torch.clone), "c": other}) == [("a", "b"), ("c",)]
    assert torch.equal(stack([both, both]).tensors["bias"], torch.full((2, 5), -1.0))


# --- blocks of a model -----------------------------------------------------------------------------------------------


def test_the_top_blocks_are_the_last_of_the_stack_that_answers() -> None:
    encoder = [f"encoder.block.{k}.layer.0.q" for k in (0, 1, 10)]
    decoder = [f"decoder.block.{k}.layer.{j}.v" for k in (2, 9, 10) for j in (0, 1)]
    plain = [f"model.layers.{k}.self_attn.q" for k in (0, 9, 10)]
    assert top_blocks(plain, 2) == ("model.layers.9.self_attn.q", "model.layers.10.self_attn.q")
    assert top_blocks([*encoder, *decoder], 2) == tuple(decoder[2:])
    assert top_blocks([*decoder, *encoder], 1) == tuple(decoder[4:])
    assert top_blocks(encoder, 1) == ("encoder.block.10.layer.0.q",)
    assert top_blocks([*plain, "head.dense"], 9) == tuple(plain)
    assert top_blocks(["head.dense"], 1) == ()


# --- at a limited rank -----------------------------------------------------------------------------------------------


def rest(matrix: torch.Tensor, rank: int) -> float:
    """√Σ_{k > rank} σ_k²: no matrix of that rank is nearer (Eckart and Young)."""
    return float(torch.linalg.svdvals(matrix.double())[rank:].norm())


@pytest.mark.parametrize("make", [site, triplets])
@pytest.mark.parametrize(("r", "o", "i"), [(4, 7, 5), (5, 11, 6), (8, 5, 7), (6, 4, 9)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_truncated_update_is_the_nearest_and_tells_its_distance(
    make: Callable[..., LowRank], r: int, o: int, i: int, rank: int
) -> None:
    whole = make(r, r, o, i, 2.5)
    kept, error = truncated(whole, rank)
    assert (kept.rank, kept.shape, kept.scale, kept.sigma) == (rank, (o, i), 1.0, None)
    exact = whole.scale * whole.up.double() @ whole.A.double()
    size = float(exact.norm())
    assert error == pytest.approx(rest(exact, rank), abs=1e-6 * size)
    assert float((exact - kept.B.double() @ kept.A.double()).norm()) == pytest.approx(error, abs=1e-6 * size)
    assert error > 1e-2 * size


@pytest.mark.parametrize(("o", "i"), [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_the_nearest_update_is_as_near_as_any_of_its_rank(o: int, i: int, rank: int) -> None:
    (matrix,) = draw(o, (o, i))
    found = nearest(matrix, rank)
    assert found.rank == rank
    assert found.A.is_contiguous()
    assert found.B.is_contiguous()
    distance = float((matrix - found.B.double() @ found.A.double()).norm())
    assert distance == pytest.approx(rest(matrix, rank), rel=1e-5)
    for seed in range(20):  # nor is any neighbour nearer
        A, B = draw(seed, (rank, i), (o, rank))
        moved = (found.B.double() + 1e-2 * B) @ (found.A.double() + 1e-2 * A)
        assert float((matrix - moved).norm()) > distance


@pytest.mark.parametrize("rank", [4, 5, 64])
def test_room_for_more_rank_than_there_is_keeps_all(rank: int) -> None:
    update = site(3, 4, 7, 5)
    kept, error = truncated(update, rank)
    assert error <= 1e-9 * float(update.norm())
    assert kept.rank <= 5
    torch.testing.assert_close(kept.dense(), update.dense(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nearest(update.dense(), rank).dense(), update.dense(), rtol=1e-5, atol=1e-5)
    wide = site(3, 8, 4, 7)  # of a rank that its matrix cannot have
    whole, error = truncated(wide, rank)
    assert (whole.rank, error) == (4, pytest.approx(0, abs=1e-9))
    torch.testing.assert_close(whole.dense(), wide.dense(), rtol=1e-5, atol=1e-5)


def test_nothing_learned_is_truncated_to_nothing() -> None:
    kept, error = truncated(LowRank(torch.randn(2, 5), torch.zeros(7, 2), 4.0), 1)
    assert error == 0
    assert torch.equal(kept.dense(), torch.zeros(7, 5))
    assert torch.equal(nearest(torch.zeros(7, 5), 3).dense(), torch.zeros(7, 5))


# --- what stands around them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [site, triplets])
def test_a_difference_is_of_both_ranks(make: Callable[..., LowRank]) -> None:
    new, old = make(1), make(2)
    found = difference(new, old)
    assert found.rank == 4
    torch.testing.assert_close(found.dense(), new.dense() - old.dense(), rtol=1e-5, atol=1e-5)


def test_what_is_precise_has_sixteen_digits_where_the_device_can() -> None:
    assert precise(torch.ones(1)).dtype == precise(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    A, B = draw(0, (2, 5), (7, 2))
    assert LowRank(A, B).dense().dtype == torch.float64, "checks of gradients need it"
    assert LowRank(A, B.float()).map(lambda t: t.float()).dense().dtype == torch.float32


def test_other_tensors_in_the_same_form() -> None:
    one, other = triplets(1, scale=2.5), triplets(2)
    found = one.holding(other.tensors)
    assert found.scale == 2.5
    torch.testing.assert_close(found.dense(), 2.5 / 4 * other.dense())
    assert site(1).holding(site(2).tensors).sigma is None


def test_whole_weights_are_counted_and_measured_together() -> None:
    one = Weights({"weight": torch.full((2, 2), 2.0), "bias": torch.tensor([3.0])})
    assert one.numel == 5
    assert float(one.norm()) == 5  # √(4 · 4 + 9)
    assert float(one.map(lambda t: 2 * t).norm()) == 10
    assert one.holding({"bias": torch.ones(2)}).numel == 2


def test_a_gradient_of_a_pair_goes_on_to_the_triplets_that_make_it() -> None:
    """Of f = Σ C ∘ (A) + Σ D ∘ (B diag σ), by autograd."""
    live, (C, D) = triplets(3, 2, 7, 5, 4.0, 3), draw(4, (3, 2, 5), (3, 7, 2), dtype=torch.float32)
    leaves = live.map(lambda t: t.clone().requires_grad_())
    wanted = torch.autograd.grad((C * leaves.A).sum() + (D * leaves.up).sum(), list(leaves.tensors.values()))
    found = PenaltyGradient.through(live, torch.zeros(3), C, D)
    assert found.sigma is not None
    for have, want in zip((found.A, found.B, found.sigma), wanted, strict=True):
        torch.testing.assert_close(have, want)
    assert PenaltyGradient.through(site(3), torch.zeros(3), C, D).sigma is None


def test_the_top_blocks_are_the_last_of_the_decoder() -> None:
    model = [f"model.layers.{k}.self_attn.{name}" for k in (0, 1, 10) for name in ("q", "v")]
    assert top_blocks(model, 1) == tuple(model[4:])
    assert top_blocks(model, 2) == tuple(model[2:])
    assert top_blocks(model, 9) == tuple(model)
    t5 = [f"{stack}.block.{k}.layer.0.q" for stack in ("encoder", "decoder") for k in (0, 1, 2)]
    assert top_blocks(t5, 2) == tuple(t5[4:])
    assert top_blocks(["pooler.dense", "a.0.x"], 1) == ("a.0.x",)


@pytest.mark.parametrize(("o", "i", "rank"), [(60, 90, 12), (90, 60, 12), (40, 40, 19)])
def test_a_sketch_is_about_as_near_as_the_nearest(o: int, i: int, rank: int) -> None:
    matrix = draw(1, (o, i))[0].float()
    best, found = nearest(matrix, rank), sketched(matrix, rank)
    assert (found.rank, found.shape) == (rank, (o, i))
    error, least = ((matrix - one.dense()).norm() for one in (found, best))
    assert least <= error * (1 + 1e-6) <= 1.03 * least
    assert torch.equal(sketched(matrix, rank).A, found.A), "of a fixed seed"


@pytest.mark.parametrize("steep", [2, 4, 8])
@pytest.mark.parametrize(("o", "i", "rank"), [(60, 90, 12), (90, 60, 29)])
def test_a_sketch_of_falling_singular_values_is_as_near_as_fp32_can_be(o: int, i: int, rank: int, steep: int) -> None:
    U, S, V = torch.linalg.svd(draw(1, (o, i))[0], full_matrices=False)
    matrix = (U * torch.logspace(0, -steep, len(S)).double() @ V).float()
    error, least = (float((matrix - act(matrix, rank).dense()).norm()) for act in (sketched, nearest))
    assert error <= 1.03 * least + 1e-6 * float(matrix.norm())


def test_a_sketch_of_a_matrix_of_low_rank_is_exact() -> None:
    B, A = draw(2, (60, 3), (3, 90))
    found = sketched((B @ A).float(), 12)
    torch.testing.assert_close(found.dense(), (B @ A).float(), rtol=1e-4, atol=1e-4)
    assert all(bool(tensor.isfinite().all()) for tensor in found.tensors.values())


@pytest.mark.parametrize(("o", "i", "rank"), [(10, 30, 5), (30, 10, 64), (8, 8, 8)])
def test_a_sketch_of_half_the_full_rank_is_the_matrix_itself(o: int, i: int, rank: int) -> None:
    matrix = draw(1, (o, i))[0].float()
    assert torch.equal(sketched(matrix, rank).dense(), matrix)
    assert sketched(torch.zeros(o, i), 1).dense().norm() == 0
