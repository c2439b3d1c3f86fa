"""Paired tests against hand computation, Holm against its definition, the smallest difference against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from everlora.analysis.significance import detectable, holm, over_rows, over_runs, paired, told_apart


def test_over_runs_by_hand() -> None:
    """Of (1, 2, 3): t = 2 / (1 / √3) = 2√3, two degrees of freedom: p = 1 − t / √(t² + 2) = 1 − √(12 / 14)."""
    assert over_runs(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - np.sqrt(12 / 14))
    assert over_runs(np.array([1.0, -1.0])) == 1.0
    assert over_runs(np.zeros(3)) == 1.0


def test_over_rows_by_hand() -> None:
    """SE 1: z = 1.96 is at 5 %; what no row contradicts is as sure as there are resamples."""
    draws = np.array([-1.0, 1.0] * 50)
    assert over_rows(1.959964, 3 + draws) == pytest.approx(0.05, abs=1e-6)
    assert over_rows(1.0, np.ones(99)) == 2 / 100
    assert over_rows(0.0, np.zeros(99)) == 1.0


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
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8))
def test_a_p_is_a_share_and_does_not_know_signs(values: list[float]) -> None:
    p = over_runs(np.array(values))
    assert 0 <= p <= 1
    assert p == over_runs(-np.array(values))


def null(random: np.random.Generator, runs: int, seed: float, row: float, shared: float) -> tuple[float, str]:
    """Two methods that are alike: p of differences by seeds, by rows of a run and by rows that all runs share."""
    each = random.normal(0, shared) + random.normal(0, np.hypot(seed, row), runs)
    spread = np.sqrt(each.var() / runs + row**2 / runs + shared**2)  # what the bootstrap comes to
    draws = each.mean() + spread * np.array([-1.0, 1.0] * 50)
    return paired(each, draws)


@pytest.mark.parametrize("runs", [2, 3, 5, 8])
@pytest.mark.parametrize(("seed", "row", "shared"), [(2.0, 0.3, 0.2), (2.0, 2.0, 1.0), (0.5, 2.0, 2.0)])
def test_methods_that_are_alike_are_told_apart_in_5_percent_at_most(
    runs: int, seed: float, row: float, shared: float
) -> None:
    random = np.random.default_rng(0)
    assert np.mean([told_apart(*null(random, runs, seed, row, shared)) for _ in range(1500)]) <= 0.065


def test_one_run_tells_nothing_apart() -> None:
    p, test = paired(np.array([30.0]), 30 + np.array([-1.0, 1.0] * 50))
    assert p < 1e-6
    assert test == "rows"
    assert not told_apart(p, test)
    assert paired(np.array([30.0, 31.0, 29.0]), 30 + np.array([-1.0, 1.0] * 50))[1] == "runs and rows"


def test_the_smallest_difference_by_its_formula() -> None:
    """Runs alike, SE 1: 1.9600 + 0.8416; two runs 2 apart: SE 1, quantiles of t with one degree of freedom."""
    draws = np.array([-1.0, 1.0] * 50)
    assert detectable(np.ones(2), draws) == pytest.approx(2.8016, abs=1e-4)
    assert detectable(np.ones(2), 2 * draws) == pytest.approx(2 * 2.8016, abs=2e-4)
    assert detectable(np.array([-1.0, 1.0]), draws) == pytest.approx(12.7062 + 1.3764, abs=1e-4)
    assert detectable(np.ones(2), draws, comparisons=3) == pytest.approx(2.3940 + 0.8416, abs=1e-4)


def test_there_is_no_smallest_difference_where_nothing_varied_or_of_one_run() -> None:
    assert detectable(np.zeros(3), np.zeros(99)) is None
    assert detectable(np.ones(1), np.array([-1.0, 1.0])) is None


def test_a_difference_of_that_size_is_found_in_about_four_of_five() -> None:
    random, found = np.random.default_rng(1), []
    draws = 0.1 * np.array([-1.0, 1.0] * 50)
    size = (stdtrit(7, 0.975) + stdtrit(7, 0.8)) * 2 / np.sqrt(8)
    for _ in range(600):
        each = size + random.normal(0, 2, 8)
        found.append(paired(each, each.mean() + draws)[0] <= 0.05)
    assert 0.74 <= np.mean(found) <= 0.86
