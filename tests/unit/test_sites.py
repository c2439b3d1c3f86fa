from __future__ import annotations

import pytest
import torch

from everlora.core.sites import LowRank, concatenate, groups, stack


def site(seed: int, r: int = 2, o: int = 7, i: int = 5, scale: float = 4.0, *lead: int) -> LowRank:
    source = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(*lead, r, i, generator=source), torch.randn(*lead, o, r, generator=source), scale)


def test_dense_is_the_sum_over_ranks_times_the_scale() -> None:
    one = site(0, scale=0.5)
    dense = one.dense()
    for x in range(7):
        for y in range(5):
            expected = 0.5 * sum(float(one.B[x, a]) * float(one.A[a, y]) for a in range(2))
            assert float(dense[x, y]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (one.rank, one.shape, one.numel) == (2, (7, 5), 2 * (7 + 5))


@pytest.mark.parametrize("lead", [(), (3,)])
def test_norm_from_factors_is_the_norm_of_the_dense_update(lead: tuple[int, ...]) -> None:
    one = site(1, 3, 11, 6, 2.5, *lead)
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
    for k, part in enumerate(parts):
        assert torch.equal(whole.dense()[k], part.dense())


@pytest.mark.parametrize("other", [site(1, r=3), site(1, o=8), site(1, i=6), site(1, scale=2.0)], ids=list("rois"))
def test_unlike_updates_are_not_stacked(other: LowRank) -> None:
    with pytest.raises(ValueError, match="one shape, rank and scale"):
        stack([site(0), other])


def test_groups_keep_order_and_cover_every_module_once() -> None:
    sites = {"a": site(0), "b": site(1, o=8), "c": site(2), "d": site(3, scale=2.0), "e": site(4, o=8)}
    assert groups(sites) == [("a", "c"), ("b", "e"), ("d",)]
    for names in groups(sites):
        assert stack([sites[n] for n in names]).A.shape[0] == len(names)
    assert groups({}) == []
