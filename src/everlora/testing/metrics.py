"""Checks every metric: bounds, right answers, order of rows, shares of rows, undefined cases.

test_token_f1 = metric_battery("token_f1")
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from everlora.core.errors import ConfigError, DataError, EverloraError
from everlora.metrics import METRICS, Answer, AnswerMetric, MatrixMetric, References, ScoreMatrix

_LABELS = ("sports and other games", "news of the world", "science or new technology", "business and the market")
_WORDS = (
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "by",
    "mat",
    "road",
    "red",
    "old",
    "blue",
    "hill",
    "film",
    "team",
    "up",
)
CLOSE = 1e-6
"""Percent by which sums in another order may differ."""


@dataclass(frozen=True)
class AnswerCase:
    """Holds a metric of answers, and answers to try it on: of labels, and of free text."""

    metric: AnswerMetric
    rows: tuple[Answer, ...]
    labels: tuple[str, ...]


def _answer_cases(metric: AnswerMetric) -> list[AnswerCase]:
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.sample(_WORDS, draw.randint(4, 9)))

    def near(target: str) -> str:
        return " ".join([word for word in target.split() if draw.random() < 0.7] + [draw.choice(_WORDS)])

    labelled, free = [], []
    for _ in range(40):
        right = draw.choice(_LABELS)
        answers = right, draw.choice(_LABELS), "none of them", ""
        labelled.append(Answer(draw.choice(answers), (right,), f"is this {right}"))
        targets = tuple(text() for _ in range(draw.randint(1, 2)))
        answers = near(targets[0]), near(targets[-1]), text(), ""
        free.append(Answer(draw.choice(answers), targets, f"write {targets[0]} again"))
    return [AnswerCase(metric, tuple(labelled), _LABELS), AnswerCase(metric, tuple(free), ())]


def _right(case: AnswerCase) -> list[Answer]:
    """Return each row answered as it was learned; where several answers are accepted, some metrics want all."""
    return [Answer(row.accepted[0], row.accepted[:1], row.source) for row in case.rows]


def it_says_what_it_is(case: AnswerCase) -> None:
    """It has a formula and a source, and is found under its id and its aliases, however spelt."""
    metric = case.metric
    assert metric.formula
    assert metric.source
    for name in (metric.id, metric.id.upper().replace("_", "-"), *metric.aliases):
        assert METRICS.find(name) is metric, f"{name!r} is not found as {metric.id!r}"


def every_value_is_a_percentage(case: AnswerCase) -> None:
    """A row and a task have from 0 to 100 percent, whatever was answered."""
    try:
        score, each = case.metric.score(case.rows, case.labels)
    except DataError as error:  # everlora refuses the value itself, before anything is learned
        raise AssertionError(str(error)) from None
    for value in (score, *each):
        assert -CLOSE <= value <= 100 + CLOSE, f"{value} is no percentage"
    assert len(each) == len(case.rows)


def right_answers_get_100(case: AnswerCase) -> None:
    """Whoever answers what was learned has 100 percent, of every row and of the task."""
    score, each = case.metric.score(_right(case), case.labels)
    assert each == pytest.approx([100.0] * len(each), abs=CLOSE)
    assert score == pytest.approx(100.0, abs=CLOSE)


def wrong_answers_get_less(case: AnswerCase) -> None:
    """An answer that has nothing in common with what is right has less than a right one."""
    wrong = [Answer("zzz qqq", row.accepted, row.source) for row in case.rows]
    assert case.metric.score(wrong, case.labels)[0] < 50


def the_order_of_rows_changes_nothing(case: AnswerCase) -> None:
    """Rows in another order have the same values each, and the same score together."""
    places = list(range(len(case.rows)))
    random.Random(1).shuffle(places)
    score, each = case.metric.score(case.rows, case.labels)
    again, mixed = case.metric.score([case.rows[k] for k in places], case.labels)
    assert again == pytest.approx(score, abs=CLOSE)
    assert mixed == pytest.approx([each[k] for k in places], abs=CLOSE)


def the_mean_of_what_rows_add_is_the_score(case: AnswerCase) -> None:
    """The values of rows, or where the score is no mean their shares, have the score as their mean."""
    metric = case.metric
    score, each = metric.score(case.rows, case.labels)
    shares = metric.shares(case.rows, case.labels) if metric.shares else each
    assert len(shares) == len(case.rows)
    assert sum(shares) / len(shares) == pytest.approx(score, abs=CLOSE)


def no_rows_are_refused(case: AnswerCase) -> None:
    """The score of nothing is undefined, and said to be so in one line."""
    with pytest.raises(EverloraError):
        case.metric.score((), case.labels)


def one_row_is_enough(case: AnswerCase) -> None:
    """A task of a single row is scored, an empty answer among them."""
    for row in (case.rows[0], Answer("", case.rows[0].accepted, "")):
        score, _ = case.metric.score([row], case.labels)
        assert math.isfinite(score)


ANSWER_CHECKS: dict[str, Callable[[AnswerCase], None]] = {
    check.__name__: check
    for check in (
        it_says_what_it_is,
        every_value_is_a_percentage,
        right_answers_get_100,
        wrong_answers_get_less,
        the_order_of_rows_changes_nothing,
        the_mean_of_what_rows_add_is_the_score,
        no_rows_are_refused,
        one_row_is_enough,
    )
}
"""The checks of metrics of answers, by name."""

_MATRIX = ScoreMatrix(("a", "b", "c"), (10, 30, 20), ((90, 40, 30), (70, 80, 36), (60, 75, 85)))
_REFERENCES = References(
    base=(10, 30, 31),
    chance=(50, 25, 20),
    single=(95, 80, 75),
    general=({"questions": 60.0, "perplexity": 8.0}, {"questions": 58.0, "perplexity": 10.0}),
)


def it_has_a_name_a_formula_and_a_source(metric: MatrixMetric) -> None:
    """It is found under its id and other spellings of it, with formula and source."""
    assert metric.formula
    assert metric.source
    for name in (metric.id, metric.id.upper().replace("_", "-"), *metric.aliases):
        assert METRICS.find(name) is metric


def a_complete_matrix_gives_a_number(metric: MatrixMetric) -> None:
    """Where everything was measured, the value is a finite number, the same each time."""
    value = metric(_MATRIX, _REFERENCES)
    assert value is not None
    assert math.isfinite(value)
    assert metric(_MATRIX, _REFERENCES) == value


def what_was_not_measured_gives_none(metric: MatrixMetric) -> None:
    """An empty matrix without references has no value, nor has a metric without the reference that it needs."""
    assert metric(ScoreMatrix.empty(("a", "b"), (5, 5)), References()) is None
    if metric.needs:
        assert metric(_MATRIX, References()) is None


def a_single_task_is_no_error(metric: MatrixMetric) -> None:
    """After one task a value is a number, or undefined."""
    value = metric(ScoreMatrix(("a",), (10,), ((90.0,),)), References())
    assert value is None or math.isfinite(value)


def names_and_the_size_of_all_tests_change_nothing(metric: MatrixMetric) -> None:
    """Tasks under other names, and twice as many test rows of every task, give the same value."""
    twice = ScoreMatrix(("x", "y", "z"), tuple(2 * n for n in _MATRIX.counts), _MATRIX.cells)
    assert metric(twice, _REFERENCES) == pytest.approx(metric(_MATRIX, _REFERENCES))


MATRIX_CHECKS: dict[str, Callable[[MatrixMetric], None]] = {
    check.__name__: check
    for check in (
        it_has_a_name_a_formula_and_a_source,
        a_complete_matrix_gives_a_number,
        what_was_not_measured_gives_none,
        a_single_task_is_no_error,
        names_and_the_size_of_all_tests_change_nothing,
    )
}
"""The checks of metrics of the matrix, by name."""


def metric_battery(name: str, *, without: Sequence[str] = ()) -> Callable[..., None]:
    """Make a test function for a metric of either kind, to be given a name that begins with ``test``.

    >>> test_exact_match = metric_battery("exact_match")
    >>> test_exact_match("right_answers_get_100")  # as pytest does, once for each check

    Args:
        name: of the metric; what registers it must have been imported.
        without: names of checks that it does not mean to pass.

    Raises:
        ConfigError: unknown metric or check.
    """
    metric = METRICS.get(name)
    known = ANSWER_CHECKS if isinstance(metric, AnswerMetric) else MATRIX_CHECKS
    if unknown := set(without) - set(known):
        raise ConfigError(f"no check is called {', '.join(sorted(unknown))}; known: {', '.join(known)}")

    @pytest.mark.parametrize("check", [one for one in known if one not in without])
    def test(check: str) -> None:
        if isinstance(metric, MatrixMetric):
            MATRIX_CHECKS[check](metric)
        else:
            for case in _answer_cases(metric):
                ANSWER_CHECKS[check](case)

    test.__doc__ = f"The battery of everlora for the metric {name}."
    return test
