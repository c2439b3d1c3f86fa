"""Statistics over seeds and rows: pure functions of who answered what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlora.analysis.compare import METRICS, Interval, RunAnswers, estimate, gap
from everlora.core.errors import ConfigError
from everlora.metrics.scores import ScoreMatrix, metrics

FEW = 200


def width(interval: Interval) -> float:
    return interval.high - interval.low


def answers(seed: int, hits: dict[tuple[int, int], list[int]], tasks: int = 2) -> RunAnswers:
    cells = {cell: np.array(rows, dtype=np.float32) for cell, rows in hits.items()}
    return RunAnswers(seed, tuple(f"t{j}" for j in range(tasks)), cells)


def drawn(seed: int, rates: list[float], rows: int, of: int = 0, full: bool = True) -> RunAnswers:
    """A run whose row i answers each task at rates[i]."""
    random = np.random.default_rng([of, seed])
    tasks = len(rates)
    cells = [(i, j) for i in range(tasks) for j in range(i + 1) if full or i in (j, tasks - 1)]
    return answers(seed, {cell: list(random.random(rows) < rates[cell[0]]) for cell in cells}, tasks)


runs = st.builds(
    lambda seeds, rates, rows, of: [drawn(s, rates, rows, of) for s in sorted(seeds)],
    st.sets(st.integers(0, 20), min_size=1, max_size=4),
    st.lists(st.floats(0, 1), min_size=2, max_size=4),
    st.integers(1, 30),
    st.integers(0, 10**6),
)


def test_by_hand() -> None:
    """Two tasks, two rows: a[1][1] = 50, a[2][1] = 0, a[2][2] = 100."""
    one = answers(0, {(0, 0): [1, 0], (1, 0): [0, 0], (1, 1): [1, 1]})
    found = estimate([one], resamples=4000)
    assert found.means == {"oa": 50.0, "bwt": -50.0, "forgetting": 50.0, "learning_accuracy": 75.0}
    oa, bwt = found.interval("oa"), found.interval("bwt")
    assert oa is not None
    assert (oa.low, oa.high) == (50.0, 50.0)  # no row of the last stage differs from another
    assert bwt is not None
    assert (bwt.low, bwt.high) == (-100.0, 0.0)
    # a[1][1] is 0, 50 or 100 with probability 1/4, 1/2, 1/4, and BWT its negative.
    shares = [float((found.draws["bwt"] == value).mean()) for value in (0.0, -50.0, -100.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_seeds_are_resampled_too() -> None:
    """Rows that do not differ, seeds that do: 0, 50 or 100 with probability 1/4, 1/2, 1/4."""
    two = [answers(s, {(0, 0): [s] * 5}, tasks=1) for s in (0, 1)]
    found = estimate(two, resamples=4000)
    assert found.means["oa"] == 50.0
    shares = [float((found.draws["oa"] == value).mean()) for value in (0.0, 50.0, 100.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_rows_are_drawn_once_for_all_seeds() -> None:
    """Seeds that agree on every row are no more rows: three such runs are as uncertain as one."""
    rows = [1, 0] * 10
    one, three = (estimate([answers(s, {(0, 0): rows}, tasks=1) for s in range(n)]) for n in (1, 3))
    assert np.array_equal(one.draws["oa"], three.draws["oa"])


@settings(max_examples=25, deadline=None)
@given(runs=runs)
def test_means_are_those_of_the_matrices(runs: list[RunAnswers]) -> None:
    found = estimate(runs, resamples=FEW)
    each = []
    for run in runs:
        size = len(run.tasks)
        at = {cell: 100.0 * float(rows.mean(dtype=float)) for cell, rows in run.cells.items()}
        cells = tuple(tuple(at.get((i, j)) for j in range(size)) for i in range(size))
        each.append(metrics(ScoreMatrix(run.tasks, (1,) * size, cells)))
    for metric in METRICS:
        values = [one[metric] for one in each]
        assert found.means[metric] == pytest.approx(np.mean([v for v in values if v is not None]))


@settings(max_examples=25, deadline=None)
@given(runs=runs)
def test_an_interval_holds_its_point_and_stays_in_bounds(runs: list[RunAnswers]) -> None:
    found = estimate(runs, resamples=FEW)
    for metric in METRICS:
        interval = found.interval(metric)
        assert interval is not None
        assert interval.low <= interval.mean <= interval.high
        low = 0.0 if metric in ("oa", "learning_accuracy") else -100.0
        assert low <= interval.low <= interval.high <= 100.0


@settings(max_examples=25, deadline=None)
@given(runs=runs, value=st.sampled_from([0, 1]))
def test_a_constant_sample_has_no_width(runs: list[RunAnswers], value: int) -> None:
    constant = [
        RunAnswers(run.seed, run.tasks, {cell: np.full_like(rows, value) for cell, rows in run.cells.items()})
        for run in runs
    ]
    found = estimate(constant, resamples=FEW)
    for metric in METRICS:
        interval = found.interval(metric)
        assert interval is not None
        assert width(interval) == 0


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.2, 0.8), of=st.integers(0, 1000))
def test_more_rows_are_narrower(rate: float, of: int) -> None:
    few, many = (estimate([drawn(0, [rate, rate], rows, of)]).interval("oa") for rows in (20, 500))
    assert few is not None
    assert many is not None
    assert width(many) < width(few)


@settings(max_examples=15, deadline=None)
@given(runs=runs, order=st.randoms())
def test_the_order_of_runs_changes_nothing(runs: list[RunAnswers], order: object) -> None:
    shuffled = list(runs)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (estimate(some, resamples=FEW) for some in (runs, shuffled))
    assert one.means == other.means
    assert all(np.array_equal(one.draws[m], other.draws[m]) for m in METRICS)


def test_the_seed_of_the_bootstrap_decides() -> None:
    some = [drawn(s, [0.5, 0.5], 30) for s in range(2)]
    draws = [estimate(some, resamples=FEW, seed=seed).draws["oa"] for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@settings(max_examples=15, deadline=None)
@given(runs=runs)
def test_a_method_does_not_differ_from_itself(runs: list[RunAnswers]) -> None:
    found = estimate(runs, resamples=FEW)
    none = gap(found, found)
    assert none is not None
    assert (none.interval.mean, width(none.interval)) == (0, 0)


def test_pairing_tells_apart_what_intervals_do_not() -> None:
    """One method answers what the other does and three rows more: every resample agrees who is better."""
    rows = [1, 0] * 20
    more = [1, 1, 1, 1, 1, 1, *rows[6:]]
    one, other = (estimate([answers(s, {(0, 0): r}, tasks=1) for s in (0, 1)]) for r in (rows, more))
    mine, theirs, apart = one.interval("oa"), other.interval("oa"), gap(one, other)
    assert mine is not None
    assert theirs is not None
    assert apart is not None
    assert mine.high > theirs.low
    assert apart.interval.mean == pytest.approx(-100 * 3 / 40)
    assert apart.interval.high <= 0 and width(apart.interval) < width(mine)  # noqa: PT018


def test_undefined_stays_undefined() -> None:
    final = drawn(0, [0.5, 0.5, 0.5], 9, full=False)
    found = estimate([final], resamples=FEW)
    assert found.interval("bwt") is not None
    assert found.interval("forgetting") is None  # a[2][1] was not measured
    alone = estimate([answers(0, {(1, 0): [1], (1, 1): [0]})], resamples=FEW)
    assert alone.interval("oa") is not None
    assert [alone.interval(metric) for metric in METRICS[1:]] == [None] * 3
    assert gap(found, alone, "bwt") is None


def test_seeds_twice_and_other_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="one run per seed"):
        estimate([drawn(1, [0.5, 0.5], 4), drawn(1, [0.5, 0.5], 4)])
    with pytest.raises(ConfigError, match="one run per seed"):
        estimate([])
    for other in (drawn(1, [0.5, 0.5], 5), drawn(1, [0.5] * 3, 4)):
        with pytest.raises(ConfigError, match="the same rows"):
            estimate([drawn(0, [0.5, 0.5], 4), other])


def test_coverage_over_rows() -> None:
    """The 95 % interval holds the true rate in about 95 % of samples (200 of 60 rows, rate 0.6)."""
    held = []
    for of in range(200):
        interval = estimate([drawn(0, [0.6], 60, of)], resamples=400).interval("oa")
        assert interval is not None
        held.append(interval.low <= 60.0 <= interval.high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_all_metrics_come_from_the_same_resamples() -> None:
    """BWT of a resample is OA minus learning accuracy, times T/(T−1): so with two tasks."""
    found = estimate([drawn(s, [0.8, 0.4], 25) for s in range(3)], resamples=FEW)
    bwt = 2 * (found.draws["oa"] - found.draws["learning_accuracy"])
    assert found.draws["bwt"] == pytest.approx(bwt)


def test_orders_and_seeds_are_paired_by_both() -> None:
    """Two orders of the same tasks: the difference is over the runs that both have, and only these."""
    a = answers(0, {(0, 0): [1, 0], (1, 0): [1, 1], (1, 1): [1, 0]})
    back = RunAnswers(0, ("t1", "t0"), a.cells, "back")
    worse = RunAnswers(0, back.tasks, {**back.cells, (1, 0): np.zeros(2, dtype=np.float32)}, "back")
    both, one = estimate([a, back], resamples=FEW), estimate([worse], resamples=FEW)
    assert both.units == (("", 0), ("back", 0))
    assert both.means["oa"] == 75.0
    found = gap(both, one)
    assert found is not None
    assert found.each.tolist() == [50.0]  # order "back" alone
    elsewhere = estimate([RunAnswers(0, a.tasks, a.cells, "third")], resamples=FEW)
    assert gap(both, elsewhere) is None


def test_orders_of_other_tasks_are_refused() -> None:
    a = answers(0, {(0, 0): [1], (1, 0): [1], (1, 1): [1]})
    with pytest.raises(ConfigError, match="the same rows"):
        estimate([a, RunAnswers(0, ("t0", "other"), a.cells, "second")])
