"""Paired tests against hand computation, Holm against its definition, the smallest difference against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from everlora.analysis.significance import detectable, holm, paired, spread, told_apart, with_the_best

ROWS = np.array([-1.0, 1.0] * 50)
"""Resamples of rows with a variance of 1."""
NONE = np.zeros(100)


def test_the_error_by_hand() -> None:
    """Of (1, 2, 3), s² = 1: c V_runs = (3 / 2) / 3; with rows of 1 SE² = 3 / 2 and df = 2 (3 / 2)² / (1 / 2)²."""
    assert spread(np.array([1.0, 2.0, 3.0]), ROWS) == pytest.approx((np.sqrt(1.5), 18))
    assert spread(np.array([1.0, 2.0, 3.0]), NONE) == pytest.approx((np.sqrt(0.5), 2))
    assert spread(np.ones(3), 2 * ROWS) == (2.0, np.inf)
    assert spread(np.array([1.0, 3.0]), ROWS) == (1.0, np.inf)


def test_p_by_hand() -> None:
    """Runs alone: t = 2 √2 with two degrees of freedom, p = 1 − t / √(t² + 2); rows alone: z = 1.96 is at 5 %."""
    assert paired(np.array([1.0, 2.0, 3.0]), NONE)[0] == pytest.approx(1 - np.sqrt(8 / 10))
    assert paired(np.full(3, 1.959964), 3 + ROWS)[0] == pytest.approx(0.05, abs=1e-6)
    assert paired(np.ones(3), NONE)[0] == 2 / 101
    assert paired(np.array([1.0, -1.0, 0.0]), ROWS)[0] == 1.0


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


def test_with_the_best_by_hand() -> None:
    assert with_the_best({"a": 0.02, "b": 0.01, "c": 0.6}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 1.0})


@settings(max_examples=30)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8))
def test_a_p_is_a_share_and_does_not_know_signs(values: list[float]) -> None:
    p, _ = paired(np.array(values), ROWS)
    assert 0 <= p <= 1
    assert p == paired(-np.array(values), -ROWS)[0]


def alike(
    random: np.random.Generator, runs: int, spreads: tuple[float, float, float], methods: int = 2
) -> list[float]:
    """P of methods that are alike against the best of them, corrected: they differ by seeds, by rows of a run and by
    rows that all runs share."""
    seed, row, shared = spreads
    scores = random.normal(0, shared, (methods, 1)) + random.normal(0, np.hypot(seed, row), (methods, runs))
    best = int(scores.mean(1).argmax()) if methods > 2 else 0
    rows = np.sqrt(2 * (shared**2 + row**2 / runs)) * ROWS
    others = {str(k): paired(scores[best] - scores[k], rows)[0] for k in range(methods) if k != best}
    return list(with_the_best(others).values())


SPREADS = [(2.0, 0.3, 0.2), (2.0, 2.0, 1.0), (0.5, 2.0, 2.0), (1.0, 0.3, 0.7)]


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("spreads", SPREADS)
def test_two_methods_that_are_alike_are_told_apart_in_5_percent_at_most(
    runs: int, spreads: tuple[float, float, float]
) -> None:
    random = np.random.default_rng(0)
    assert np.mean([told_apart(alike(random, runs, spreads)[0], "runs and rows") for _ in range(1500)]) <= 0.065


@pytest.mark.parametrize("spreads", SPREADS)
def test_the_best_of_many_that_are_alike_is_told_from_another_in_few_tables(
    spreads: tuple[float, float, float],
) -> None:
    """Somebody is always best: one false claim in a table of eight methods, in about 5 % of the tables at most."""
    random = np.random.default_rng(0)
    found = [min(alike(random, 5, spreads, methods=8)) for _ in range(400)]
    assert np.mean([told_apart(p, "runs and rows") for p in found]) <= 0.08


def test_fewer_than_three_runs_tell_nothing_apart() -> None:
    for each in (np.array([30.0]), np.array([30.0, 30.0])):
        p, test = paired(each, 30 + ROWS)
        assert p < 1e-6
        assert test == "rows"
        assert not told_apart(p, test)
    p, test = paired(np.array([30.0, 31.0, 29.0]), 30 + ROWS)
    assert told_apart(p, test)


def test_the_smallest_difference_by_its_formula() -> None:
    """Runs alike, SE 1: 1.9600 + 0.8416; rows alike, SE 1: quantiles of t with two degrees of freedom."""
    assert detectable(np.ones(3), ROWS) == pytest.approx(2.8016, abs=1e-4)
    assert detectable(np.ones(3), 2 * ROWS) == pytest.approx(2 * 2.8016, abs=2e-4)
    assert detectable(np.sqrt(2) * np.array([-1.0, 0.0, 1.0]), NONE) == pytest.approx(4.3027 + 1.0607, abs=1e-4)
    assert detectable(np.ones(3), ROWS, comparisons=3) == pytest.approx(2.3940 + 0.8416, abs=1e-4)


def test_there_is_no_smallest_difference_where_nothing_varied_or_of_few_runs() -> None:
    assert detectable(np.zeros(3), NONE) is None
    assert detectable(np.ones(2), ROWS) is None


def test_a_difference_of_that_size_is_found_in_about_four_of_five() -> None:
    random, found = np.random.default_rng(1), []
    size = (stdtrit(31, 0.975) + stdtrit(31, 0.8)) * np.sqrt(1.0)
    for _ in range(600):
        shared = random.normal(0, np.sqrt(0.5))  # V_rows = 1/2, c V_runs = 1/2 where s² = 3.5 and U = 8
        each = size + shared + random.normal(0, np.sqrt(3.5), 8)
        found.append(paired(each, np.sqrt(0.5) * ROWS)[0] <= 0.05)
    assert 0.74 <= np.mean(found) <= 0.9
