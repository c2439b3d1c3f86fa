"""Every metric goes through the battery of `everlora.testing`; a new one is in it by being registered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everlora import metric
from everlora.core import registry
from everlora.core.errors import ConfigError
from everlora.metrics import METRICS, answer_metrics, matrix_metrics
from everlora.testing import metric_battery

OURS = [name for name in METRICS.all() if name not in METRICS.from_outside()]
globals().update({f"test_{name}": metric_battery(name) for name in OURS})


@pytest.fixture
def own_names() -> Iterator[None]:
    with registry.isolated():
        yield


def test_nothing_is_in_both_kinds() -> None:
    assert not set(answer_metrics()) & set(matrix_metrics())
    assert set(OURS) <= set(answer_metrics()) | set(matrix_metrics())
    assert len(OURS) == 20 + 17


def _early_rows_count_more(rows, labels):
    right = [row.prediction == row.accepted[0] for row in rows]
    return sum(200.0 * (len(rows) - k) * one for k, one in enumerate(right)) / (len(rows) * (len(rows) + 1))


BAD = {
    "every_value_is_a_percentage": {"row": lambda row: 1.2 * 100 * (row.prediction == row.accepted[0])},
    "right_answers_get_100": {"row": lambda row: 1.0 * (row.prediction == row.accepted[0])},
    "wrong_answers_get_less": {"row": lambda row: 100.0},
    "the_order_of_rows_changes_nothing": {
        "corpus": _early_rows_count_more,
        "shares": lambda rows, labels: [0.0] * len(rows),
    },
    "the_mean_of_what_rows_add_is_the_score": {
        "corpus": lambda rows, labels: 100.0,
        "shares": lambda rows, labels: [50.0] * len(rows),
    },
    "it_says_what_it_is": {"source": ""},
}


@pytest.mark.parametrize("check", BAD)
def test_it_sees(own_names: None, check: str) -> None:
    """A metric with one fault fails the check that is named, and all that is well passes elsewhere."""
    given = {"row": lambda row: 100.0 * (row.prediction == row.accepted[0]), "source": "s", **BAD[check]}
    row = given.pop("row")
    metric("faulty", formula="f", **given)(row)
    test = metric_battery("faulty")
    (mark,) = test.pytestmark
    assert check in mark.args[1]
    with pytest.raises(AssertionError):
        test(check)


def test_a_metric_of_the_matrix_that_is_never_undefined_is_seen(own_names: None) -> None:
    metric("always", of="matrix", formula="f", source="s")(lambda matrix, references: 1.0)
    test = metric_battery("always")
    test("a_complete_matrix_gives_a_number")
    with pytest.raises(AssertionError):
        test("what_was_not_measured_gives_none")


def test_it_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="no check is called nonsense; known: it_says"):
        metric_battery("bleu", without=["nonsense"])
    with pytest.raises(ConfigError, match="unknown metric 'blue'; did you mean 'bleu'"):
        metric_battery("blue")


def test_options_of_the_other_kind_are_refused(own_names: None) -> None:
    with pytest.raises(ConfigError, match="corpus and shares belong to metrics of answers"):
        metric("x", of="matrix", formula="f", source="s", corpus=lambda rows, labels: 1.0)
    with pytest.raises(ConfigError, match="needs belongs to the matrix"):
        metric("x", formula="f", source="s", needs="base")
    with pytest.raises(ConfigError, match="the metric 'x' cannot have of='matrx'; did you mean 'matrix'"):
        metric("x", of="matrx", formula="f", source="s")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the metric 'x' cannot have needs='singel'; did you mean 'single'"):
        metric("x", of="matrix", formula="f", source="s", needs="singel")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="both corpus and shares, or neither"):
        metric("x", formula="f", source="s", corpus=lambda rows, labels: 1.0)
    with pytest.raises(ConfigError, match="the metric name 'BLEU' is taken by 'bleu'"):
        metric("BLEU", formula="f", source="s")(lambda row: 0.0)
