"""How one update meets the past, on matrices small enough to work out by hand and on drawn ones."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calculus import draw
from everlora.analysis.interference import meeting
from everlora.core.updates import LowRank


def diagonal(*entries: float) -> LowRank:
    """An update whose ΔW is diagonal."""
    return LowRank(torch.eye(len(entries), dtype=torch.float64), torch.diag(torch.tensor(entries).double()))


def test_the_worked_example() -> None:
    """ΔW = diag(3, -4), W = diag(2, 1), E = |W|, λ = ½: all figures by hand."""
    found = meeting(diagonal(3, -4), diagonal(2, 1), torch.abs, 0.5)
    free = math.hypot(3 * (1 + 4), -4 * (1 + 1))  # the step before the shrinkage by 1 / (1 + 2λE²), 2λ = 1
    assert asdict(found) == pytest.approx(
        {
            "update_norm": 5.0,
            "past_norm": 5**0.5,
            "interference": 2.0,
            "cosine": 2 / (5 * 5**0.5),
            "bound": math.hypot(6, 4) * 2**0.5,
            "surrogate_bound": free / 2 * 2**0.5,  # ‖G‖ / (2 √(2λ)) · ‖E⁻¹ ⊙ W‖, which is ‖(1, 1)‖
            "opposed": 0.5,
            "conflict": 0.4,
        }
    )


@given(st.integers(0, 500), st.floats(1e-3, 1e3))
def test_the_overlap_exceeds_neither_bound(seed: int, lam: float) -> None:
    A, B, C, D = draw(seed, (2, 5), (4, 2), (2, 5), (4, 2))
    found = meeting(LowRank(A, B, 0.5), LowRank(C, D, 2.0), torch.abs, lam)
    meets, bound, surrogate = (found.interference, found.bound, found.surrogate_bound)
    assert meets is not None
    assert bound is not None
    assert surrogate is not None
    assert abs(meets) <= bound * (1 + 1e-5)
    assert abs(meets) <= surrogate * (1 + 1e-5)


@pytest.mark.parametrize("lam", [0.1, 1.0, 7.0])
def test_the_surrogate_bound_is_reached_where_shrinkage_is_worst(lam: float) -> None:
    """x / (1 + 2λx²) is largest at x = 1 / √(2λ): there a step along W meets it as much as the bound allows."""
    x = (2 * lam) ** -0.5
    found = meeting(diagonal(*[1.0] * 3), diagonal(*[x] * 3), torch.abs, lam)
    assert found.surrogate_bound == pytest.approx(found.interference, rel=1e-6)


def test_without_a_strength_or_a_past_there_is_no_bound() -> None:
    for lam in (None, 0.0):
        assert meeting(diagonal(3, -4), diagonal(2, 1), torch.abs, lam).surrogate_bound is None
    first = asdict(meeting(diagonal(3, -4), None, torch.abs, 1.0))
    assert first.pop("update_norm") == 5.0
    assert set(first.values()) == {None}
