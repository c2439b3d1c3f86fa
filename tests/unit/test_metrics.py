"""Metrics of `everlora.metrics.matrix`: the worked example, identities between them, and what is undefined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.metrics import References, matrix_metrics
from everlora.metrics.matrix import measured
from everlora.metrics.scores import METRICS, ScoreMatrix, metrics

REGISTRY = matrix_metrics()
EXAMPLE = ScoreMatrix(("a", "b", "c"), (10, 30, 20), ((90, None, None), (70, 80, None), (60, 75, 85)))


def value(name: str, m: ScoreMatrix = EXAMPLE, **beside: list[float | None]) -> float | None:
    return REGISTRY[name](m, References(**beside))  # type: ignore[arg-type]


def full(cells: list[list[float]], counts: list[int] | None = None) -> ScoreMatrix:
    size = len(cells)
    return ScoreMatrix(tuple(map(str, range(size))), tuple(counts or [7] * size), tuple(map(tuple, cells)))


matrices = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 100), min_size=n, max_size=n), min_size=n, max_size=n).map(full)
)


def test_the_worked_example() -> None:
    assert value("bwt") == pytest.approx((-30 - 5) / 2)
    assert value("bwt_over_t") == pytest.approx(-35 / 3)
    assert value("bwt_all_pairs") == pytest.approx((-20 - 30 - 5) / 3)
    assert value("bwt_relative") == pytest.approx(100 * (-30 / 90 - 5 / 80) / 2)
    assert value("bwt_weighted") == pytest.approx((10 * -30 + 30 * -5) / 40)
    assert value("forgetting_first") == pytest.approx(17.5)
    assert value("average_incremental") == pytest.approx((90 + 75 + 220 / 3) / 3)  # 79.44 in the method notes
    assert value("fwt_single", single=[95, 80, 75]) == pytest.approx((-5 + 0 + 10) / 3)
    assert value("intransigence", single=[95, 80, 75]) == pytest.approx(-5 / 3)


def test_forward_transfer_looks_at_the_task_before_it_is_learned() -> None:
    m = full([[90, 40, 30], [70, 80, 36], [60, 75, 85]])
    assert value("fwt_base", m, base=[10, 30, 31]) == pytest.approx(((40 - 30) + (36 - 31)) / 2)
    assert value("fwt_chance", m, chance=[50, 25, 20]) == pytest.approx(((40 - 25) + (36 - 20)) / 2)


def test_perplexity_that_was_measured_once_has_not_grown() -> None:
    for ends in (({"perplexity": 2.0}, {}), ({}, {"perplexity": 2.0})):
        assert REGISTRY["perplexity_growth"](EXAMPLE, References(general=ends)) is None


def test_reference_scores_are_one_for_each_task() -> None:
    for single in ([95.0, 80.0], [95.0, 80.0, 75.0, 1.0]):
        with pytest.raises(ValueError, match="zip"):
            value("fwt_single", single=list(single))


def test_all_numbers_of_a_matrix_by_id() -> None:
    found = measured(EXAMPLE, References(single=[95, 80, 75]))
    assert found.keys() == REGISTRY.keys()
    assert found["bwt"] == value("bwt")
    assert found["intransigence"] == pytest.approx(-5 / 3)
    assert found["fwt_base"] is None


def test_what_was_not_measured_stays_undefined() -> None:
    for name, metric in REGISTRY.items():
        if metric.needs:
            assert value(name) is None, name
    assert value("fwt_base", base=[1, 2, 3]) is None  # the cells above the diagonal
    assert value("fwt_single", single=[1, None, 3]) is None
    with pytest.raises(ValueError, match="shorter"):
        value("fwt_single", single=[1, 2])  # of another run
    assert value("bwt_relative", full([[0, 1], [1, 1]])) is None  # nothing was learned: no share of it is lost
    diagonal = ScoreMatrix(("a", "b"), (1, 1), ((50, None), (None, 60)))
    assert {name for name in REGISTRY if value(name, diagonal) is not None} == {"learning_accuracy"}


def test_every_metric_says_what_it_is() -> None:
    for name, metric in REGISTRY.items():
        assert metric.id == name
        assert metric.formula
        assert metric.source
    assert set(METRICS) <= set(REGISTRY)


@given(matrices)
def test_a_run_and_the_registry_agree(m: ScoreMatrix) -> None:
    assert {name: REGISTRY[name](m) for name in METRICS} == metrics(m)


@given(matrices, st.floats(-50, 50))
def test_differences_do_not_see_a_shift_and_levels_do(m: ScoreMatrix, shift: float) -> None:
    moved = full([[cell + shift for cell in row if cell is not None] for row in m.cells])
    for name in ("bwt", "bwt_over_t", "bwt_all_pairs", "bwt_weighted", "forgetting", "forgetting_first"):
        assert value(name, moved) == pytest.approx(value(name, m), abs=1e-9)
    for name in ("oa", "oa_weighted", "learning_accuracy", "average_incremental"):
        assert value(name, moved) == pytest.approx((value(name, m) or 0) + shift, abs=1e-9)


@given(matrices)
def test_identities(m: ScoreMatrix) -> None:
    tasks = len(m.tasks)
    bwt, over = value("bwt", m), value("bwt_over_t", m)
    assert bwt is not None
    assert over == pytest.approx(bwt * (tasks - 1) / tasks)
    assert value("forgetting_first", m) == pytest.approx(-bwt)
    assert value("bwt_weighted", m) == pytest.approx(bwt)  # equal test sizes
    assert (value("forgetting", m) or 0) >= -bwt - 1e-9  # the best is no worse than the first
    single = list(m.diagonal)
    assert value("intransigence", m, single=single) == pytest.approx(0)
    assert value("fwt_single", m, single=single) == pytest.approx(0)
    if tasks == 2:
        assert value("bwt_all_pairs", m) == pytest.approx(bwt)
