from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.metrics.scores import (
    METRICS,
    ScoreMatrix,
    backward_transfer,
    forgetting,
    learning_accuracy,
    mean,
    metrics,
    minus,
    overall_accuracy,
    weighted_accuracy,
)


def matrix(*rows: tuple[float | None, ...], counts: tuple[int, ...] | None = None) -> ScoreMatrix:
    size = len(rows)
    cells = tuple(tuple(row) + (None,) * (size - len(row)) for row in rows)
    return ScoreMatrix(tuple(f"t{j}" for j in range(size)), counts or (10,) * size, cells)


EXAMPLE = matrix((90,), (70, 80), (60, 75, 85))


def test_the_worked_example() -> None:
    found = metrics(EXAMPLE)
    assert found["oa"] == pytest.approx(220 / 3)
    assert found["bwt"] == pytest.approx(-17.5)
    assert found["forgetting"] == pytest.approx(17.5)
    assert found["learning_accuracy"] == pytest.approx(85)
    assert found["oa_weighted"] == pytest.approx(220 / 3)  # equal test sizes
    assert list(found) == list(METRICS)


def test_forgetting_is_measured_from_the_best_and_transfer_from_the_diagonal() -> None:
    m = matrix((50,), (80, 60), (60, 70, 90))
    assert backward_transfer(m) == pytest.approx((10 + 10) / 2)
    assert forgetting(m) == pytest.approx((20 - 10) / 2)


def test_macro_and_weighted_differ_on_unequal_sizes() -> None:
    m = matrix((90,), (40, 80), counts=(300, 100))
    assert overall_accuracy(m) == pytest.approx(60)
    assert weighted_accuracy(m) == pytest.approx(50)


def test_a_mean_by_hand() -> None:
    assert (mean([1.0, 4.0], [3.0, 1.0]), mean([1.0, 4.0]), mean([]), mean([1.0, None])) == (1.75, 2.5, None, None)
    assert (minus(3.0, 1.0), minus(0.0, 0.0), minus(None, 1.0), minus(1.0, None)) == (2.0, 0.0, None, None)
    for weights in ([1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="zip"):
            mean([1.0, 4.0], weights)


def test_one_task_has_no_transfer() -> None:
    assert metrics(matrix((90,))) == {
        "oa": 90,
        "oa_weighted": 90,
        "bwt": None,
        "forgetting": None,
        "learning_accuracy": 90,
    }


def test_nothing_measured_gives_nothing() -> None:
    empty = ScoreMatrix.empty(("a", "b", "c"), (1, 2, 3))
    assert set(metrics(empty).values()) == {None}


@pytest.mark.parametrize(
    ("stage", "task", "lost"),
    [
        (2, 2, {"oa", "oa_weighted", "learning_accuracy"}),
        (2, 0, {"oa", "oa_weighted", "bwt", "forgetting"}),
        (0, 0, {"bwt", "forgetting", "learning_accuracy"}),
        (1, 0, {"forgetting"}),  # only the running best needs what lies between
        (1, 1, {"bwt", "forgetting", "learning_accuracy"}),
    ],
)
def test_a_missing_cell_undefines_what_needs_it_and_nothing_else(stage: int, task: int, lost: set[str]) -> None:
    row = list(EXAMPLE.cells[stage])
    row[task] = None
    found = metrics(EXAMPLE.with_row(stage, row))
    assert {name for name, value in found.items() if value is None} == lost
    whole = metrics(EXAMPLE)
    assert all(found[name] == whole[name] for name in found if name not in lost)


def test_zero_is_a_score_and_not_a_missing_one() -> None:
    found = metrics(matrix((0,), (0, 0)))
    assert found == {"oa": 0, "oa_weighted": 0, "bwt": 0, "forgetting": 0, "learning_accuracy": 0}


def test_filling_a_row_leaves_the_first_matrix_alone() -> None:
    empty = ScoreMatrix.empty(("a", "b"), (1, 1))
    filled = empty.with_row(0, [50.0, None])
    assert empty.cells[0] == (None, None)
    assert filled.cells == ((50.0, None), (None, None))
    assert filled.diagonal == (50.0, None)
    assert filled.with_row(1, [40.0, 60.0]).final == (40.0, 60.0)


@pytest.mark.parametrize(
    ("counts", "cells"),
    [((1,), ((1.0, 2.0), (1.0, 2.0))), ((1, 1), ((1.0, 2.0),)), ((1, 1), ((1.0, 2.0), (1.0,)))],
)
def test_shapes_must_fit(counts: tuple[int, ...], cells: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match="2 tasks"):
        ScoreMatrix(("a", "b"), counts, cells)


def test_weights_are_one_per_value() -> None:
    assert mean([90.0, 60.0], [1, 2]) == 70
    with pytest.raises(ValueError, match="longer"):
        mean([90.0, 60.0], [1])


@st.composite
def full(draw: st.DrawFn, least: int = 1) -> ScoreMatrix:
    size = draw(st.integers(least, 6))
    score = st.integers(0, 1000).map(lambda tenth: tenth / 10)
    rows = tuple(tuple(draw(st.lists(score, min_size=size, max_size=size))) for _ in range(size))
    counts = tuple(draw(st.lists(st.integers(1, 5000), min_size=size, max_size=size)))
    return ScoreMatrix(tuple(f"t{j}" for j in range(size)), counts, rows)


def value(number: float | None) -> float:
    assert number is not None
    return number


@given(full())
def test_averages_lie_between_the_scores(m: ScoreMatrix) -> None:
    for found, over in (
        (overall_accuracy(m), m.final),
        (weighted_accuracy(m), m.final),
        (learning_accuracy(m), m.diagonal),
    ):
        known = [value(cell) for cell in over]
        assert min(known) - 1e-9 <= value(found) <= max(known) + 1e-9


@given(full(least=2))
def test_transfer_is_never_worse_than_forgetting(m: ScoreMatrix) -> None:
    """The best score so far is at least the diagonal, so BWT ≥ −FM; both are within ±100."""
    bwt, lost = value(backward_transfer(m)), value(forgetting(m))
    assert bwt >= -lost - 1e-9
    assert -100 <= bwt <= 100
    assert -100 <= lost <= 100


@given(full(least=2))
def test_transfer_links_overall_and_learning_accuracy(m: ScoreMatrix) -> None:
    """T (OA − LA) = (T − 1) BWT, for the last task's two terms are one cell."""
    size = len(m.tasks)
    left = size * (value(overall_accuracy(m)) - value(learning_accuracy(m)))
    assert math.isclose(left, (size - 1) * value(backward_transfer(m)), abs_tol=1e-7)


@given(full(least=2), st.randoms(use_true_random=False))
def test_the_order_of_columns_has_no_say_in_averages_over_the_last_row(m: ScoreMatrix, dice: object) -> None:
    order = list(range(len(m.tasks)))
    dice.shuffle(order)  # type: ignore[attr-defined]
    mixed = ScoreMatrix(
        tuple(m.tasks[j] for j in order),
        tuple(m.counts[j] for j in order),
        tuple(tuple(row[j] for j in order) for row in m.cells),
    )
    assert value(overall_accuracy(mixed)) == pytest.approx(value(overall_accuracy(m)), abs=1e-9)
    assert value(weighted_accuracy(mixed)) == pytest.approx(value(weighted_accuracy(m)), abs=1e-9)


@given(full(), st.integers(1, 50))
def test_equal_sizes_make_the_weighted_average_plain(m: ScoreMatrix, count: int) -> None:
    same = ScoreMatrix(m.tasks, (count,) * len(m.tasks), m.cells)
    assert value(weighted_accuracy(same)) == pytest.approx(value(overall_accuracy(m)), abs=1e-9)


@given(full(least=2), st.floats(-20, 20))
def test_a_shift_of_all_scores_moves_levels_and_no_difference(m: ScoreMatrix, shift: float) -> None:
    moved = ScoreMatrix(m.tasks, m.counts, tuple(tuple(value(c) + shift for c in row) for row in m.cells))
    before, after = metrics(m), metrics(moved)
    for name in METRICS:
        expected = value(before[name]) + (0 if name in ("bwt", "forgetting") else shift)
        assert value(after[name]) == pytest.approx(expected, abs=1e-6)


@given(full(), st.data())
def test_cells_above_the_diagonal_change_no_metric(m: ScoreMatrix, data: st.DataObject) -> None:
    """Tasks not yet learned may be measured or not."""
    rows = tuple(
        tuple(None if j > i and data.draw(st.booleans()) else cell for j, cell in enumerate(row))
        for i, row in enumerate(m.cells)
    )
    assert metrics(ScoreMatrix(m.tasks, m.counts, rows)) == metrics(m)
