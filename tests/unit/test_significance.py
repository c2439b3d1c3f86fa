"""Paired tests against hand computation, Holm against its definition, the smallest difference against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import stdtrit

from everlora.analysis.significance import ALPHA, Paired, corrected, detectable, holm, looked_at, paired

ROWS = np.array([-1.0, 1.0] * 50)
"""Resamples of rows with a variance of 1."""
NONE = np.zeros(100)


def alone(differences: list[float], rows: NDArray[np.float64]) -> Paired:
    """The difference of two methods in a table of their own."""
    d = np.array(differences)
    return paired(d, rows, np.stack([d, np.zeros_like(d)]))


def test_the_error_by_hand() -> None:
    """Of (1, 2, 3), s² = 1 = 2 MS, c = 2: c V_runs = 2 / 3; with rows of 1 SE² = 5 / 3, df = 2 (5 / 3)² / (2 / 3)²."""
    both = alone([1.0, 2.0, 3.0], ROWS)
    assert (both.mean, both.error, both.df) == pytest.approx((2.0, np.sqrt(5 / 3), 12.5))
    runs = alone([1.0, 2.0, 3.0], NONE)
    assert (runs.error, runs.df) == pytest.approx((np.sqrt(2 / 3), 2.0))
    assert alone([1.0] * 3, 2 * ROWS) == Paired(1.0, 2.0, np.inf, 3)
    assert alone([1.0, 3.0], ROWS) == Paired(2.0, 1.0, np.inf, 2)


def test_the_other_methods_of_a_table_say_how_much_runs_vary() -> None:
    """Scores (0, 0, 0), (1, 1, 1), (0, 3, 0): residuals of the third (−2, 4, −2) / 3, of the others half of that and
    opposed; their squares sum to 4 over f = 4, so MS = 1 and c V_runs = (3 / 2) 2 / 3 of the first two, which do not
    vary, and (3 / 2) 3 / 3 of the first and the third, which vary by 3."""
    scores = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    steady = paired(scores[1] - scores[0], NONE, scores)
    assert (steady.error, steady.df) == pytest.approx((1.0, 4.0))
    assert paired(scores[2] - scores[0], NONE, scores).error == pytest.approx(np.sqrt(1.5))


def test_p_by_hand() -> None:
    """Runs alone: t = 2 √(3 / 2), two degrees of freedom, p = 1 − t / √(t² + 2); rows alone: z = 1.96 is at 5 %."""
    assert alone([1.0, 2.0, 3.0], NONE).p == pytest.approx(1 - np.sqrt(6 / 8))
    assert alone([1.959964] * 3, 3 + ROWS).p == pytest.approx(0.05, abs=1e-6)
    assert alone([1.0] * 3, NONE).p == 0.0
    assert alone([1.0, -1.0, 0.0], ROWS).p == 1.0


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


def test_a_baseline_is_corrected_over_others_and_a_chosen_best_over_pairs() -> None:
    found = {"a": Paired(3.0, 1.0, 10.0, 5), "b": Paired(1.0, 1.0, 10.0, 5)}
    assert corrected(found, chosen=False) == holm({"a": found["a"].p, "b": found["b"].p})
    assert corrected(found, chosen=True) == {"a": 3 * found["a"].p, "b": min(1.0, 3 * found["b"].p)}
    assert [looked_at(others, chosen) for others in (1, 7) for chosen in (False, True)] == [1, 1, 7, 28]


@settings(max_examples=30)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8))
def test_a_p_is_a_share_and_does_not_know_signs(values: list[float]) -> None:
    one = alone(values, ROWS)
    assert 0 <= one.p <= 1
    assert one.p == alone([-value for value in values], -ROWS).p


def alike(random: np.random.Generator, runs: int, spreads: tuple[float, float, float], unlike: list[float]) -> float:
    """The least p of methods that are alike, against the best of them; each is as ``unlike`` from run to run."""
    seed, row, shared = spreads
    noise = random.normal(0, np.hypot(seed, row), (len(unlike), runs)) * np.array(unlike)[:, None]
    scores = random.normal(0, shared, (len(unlike), 1)) + noise
    best = int(scores.mean(1).argmax())
    rows = np.sqrt(2 * (shared**2 + row**2 / runs)) * ROWS
    others = [k for k in range(len(unlike)) if k != best]
    return min(corrected({k: paired(scores[best] - scores[k], rows, scores) for k in others}, chosen=True).values())


SPREADS = [(2.0, 0.3, 0.2), (2.0, 2.0, 1.0), (0.5, 2.0, 2.0), (1.0, 0.3, 0.7)]
"""Of seeds, of rows in each run, and of rows that all runs share."""


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("spreads", SPREADS)
@pytest.mark.parametrize("unlike", [[1.0] * 2, [1.0] * 8, [1.0] * 4 + [4.0] * 4, [1.0, 1.0, 4.0]])
def test_of_methods_that_are_alike_one_is_told_from_the_best_in_5_percent_of_tables_at_most(
    runs: int, spreads: tuple[float, float, float], unlike: list[float]
) -> None:
    random = np.random.default_rng(0)
    assert np.mean([alike(random, runs, spreads, unlike) <= ALPHA for _ in range(600)]) <= 0.06


def test_fewer_than_three_runs_are_too_few() -> None:
    for each in ([30.0], [30.0, 20.0]):
        assert not alone(each, 30 + ROWS).enough
        assert alone(each, 30 + ROWS).p < 1e-6  # of rows alone
    assert alone([30.0, 31.0, 29.0], 30 + ROWS).enough


def test_the_smallest_difference_by_its_formula() -> None:
    """Runs alike, SE 1: 1.9600 + 0.8416; rows alike, SE 1: quantiles of t with two degrees of freedom."""
    one = alone([1.0] * 3, ROWS)
    assert detectable(one) == pytest.approx(2.8016, abs=1e-4)
    assert detectable(alone([1.0] * 3, 2 * ROWS)) == pytest.approx(2 * 2.8016, abs=2e-4)
    runs = alone([-np.sqrt(1.5), 0.0, np.sqrt(1.5)], NONE)
    assert detectable(runs) == pytest.approx(4.3027 + 1.0607, abs=1e-4)
    assert detectable(one, 3) == pytest.approx(2.3940 + 0.8416, abs=1e-4)


def test_there_is_no_smallest_difference_where_nothing_varied_or_of_few_runs() -> None:
    assert detectable(alone([0.0] * 3, NONE)) is None
    assert detectable(alone([1.0] * 2, ROWS)) is None


def test_a_difference_of_that_size_is_found_in_about_four_of_five() -> None:
    """c V_runs = V_rows = 1/2, where U = 8, c = 9 / 7 and so s² = 28 / 9: 28 degrees of freedom."""
    random, found = np.random.default_rng(1), []
    size = stdtrit(28, 0.975) + stdtrit(28, 0.8)
    for _ in range(600):
        each = size + random.normal(0, np.sqrt(0.5)) + random.normal(0, np.sqrt(28 / 9), 8)
        found.append(alone(list(each), np.sqrt(0.5) * ROWS).p <= ALPHA)
    assert 0.74 <= np.mean(found) <= 0.9
