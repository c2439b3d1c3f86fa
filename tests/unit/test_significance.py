"""Paired tests against hand computation, Holm against its definition, the smallest difference against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlora.analysis.significance import detectable, holm, paired, resampled, sign_flip


def test_sign_flips_by_hand() -> None:
    """Of the 8 assignments of (1, 2, 3), two have a sum of at least 6 in size; of (1, 2, -3) all 8 have at least 0."""
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip(np.array([1.0, 2.0, -3.0])) == 1.0
    assert sign_flip(np.array([1.0, 2.0, -0.5])) == 4 / 8  # |sum| is 3.5, 2.5, 1.5 or 0.5, twice each: 3.5 and 2.5


def test_resamples_by_hand() -> None:
    assert resampled(np.array([1.0] * 99)) == 2 / 100
    assert resampled(np.array([1.0] * 90 + [-1.0] * 9)) == 20 / 100
    assert resampled(np.zeros(99)) == 1.0


def test_holm_by_hand() -> None:
    """Three comparisons: 3 x 0.01, 2 x 0.02 and 1 x 0.03, never falling."""
    assert holm({"a": 0.02, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "a": 0.04, "c": 0.04})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(found: dict[str, float]) -> None:
    corrected = holm(found)
    assert all(found[name] <= corrected[name] <= 1 for name in found)
    names = sorted(found, key=lambda name: found[name])
    assert sorted(corrected[name] for name in names) == [corrected[name] for name in names]


@settings(max_examples=30)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8))
def test_a_p_is_a_share_and_does_not_know_signs(values: list[float]) -> None:
    p = sign_flip(np.array(values))
    assert 2 / 2 ** len(values) <= p + 1e-12
    assert p <= 1
    assert p == sign_flip(-np.array(values))


def test_under_no_difference_p_is_below_5_percent_in_about_5_percent() -> None:
    random = np.random.default_rng(0)
    found = np.mean([sign_flip(random.normal(size=8)) <= 0.05 for _ in range(800)])
    assert 0.03 <= found <= 0.07


def test_few_runs_are_tested_by_resamples_and_many_by_signs() -> None:
    draws = np.ones(99)
    assert paired(np.ones(5), draws) == (2 / 100, "resampled")
    assert paired(np.ones(6), draws) == (2 / 64, "sign-flip")


def test_the_smallest_difference_by_its_formula() -> None:
    """SE 1: 1.9600 + 0.8416 = 2.8016; twice the SE, twice the difference."""
    draws = np.array([-1.0, 1.0] * 50)
    assert detectable(draws) == pytest.approx(2.8016, abs=1e-4)
    assert detectable(2 * draws) == pytest.approx(2 * 2.8016, abs=2e-4)


def test_a_difference_of_that_size_is_found_in_about_four_of_five() -> None:
    random = np.random.default_rng(1)
    spread = random.normal(size=4000)
    size = detectable(spread)
    found = np.mean([resampled(shift + spread) <= 0.05 for shift in size + random.normal(size=400)])
    assert 0.74 <= found <= 0.86
