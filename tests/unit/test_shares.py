"""Shares of corpus measures: their mean is the measure, and they foretell it when rows are drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.metrics import Answer, answer_metrics, row_shares

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "by", "mat", "road", "red", "old"]
ALIKE = {name: metric for name, metric in answer_metrics().items() if metric.corpus}


def test_shares_of_macro_f1_by_hand() -> None:
    """Asked a, a, b and answered a, b, b: F1 is 2/3 and 2/3; weight on the wrong row lowers both, on a right one one.

    d F1(a): row 1 (2 − 2/3 · 2)/3, row 2 −(2/3)/3, row 3 0; so shares are 2/3 + 3/2 · (2/9, −4/9, 2/9) = 1, 0, 1.
    """
    rows = [Answer(given, (asked,)) for asked, given in zip("aab", "abb", strict=True)]
    shares = answer_metrics()["macro_f1"].shares
    assert shares is not None
    assert shares(rows, ("a", "b")) == pytest.approx((100.0, 0.0, 100.0))


def test_counts_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        row_shares.macro_f1(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="shorter"):
        row_shares.bleu(50.0, [([1, 1], [2, 2], 2, 2), ([1], [2], 2, 2)])


def test_shares_of_bleu_by_hand() -> None:
    """log BLEU is the mean over orders of log(c/t), and 1 − r/l where the answers are short; c/t are sums over rows.

    Two words of one row's four are right, and none of the other's; the order of pairs has no match and moves with no
    row: slopes are ½ (2/2 − 2/4) and ½ (0/2 − 2/4). Then one word in all where three were wanted: 3 · 1/1 − 2 and − 1;
    and two where four were: (4 · 2/2 − 3)/2 and − 1/2.
    """
    long = [((2, 0), (2, 1), 4, 3), ((0, 0), (2, 1), 4, 3)]
    assert row_shares.bleu(10.0, long) == pytest.approx((15.0, 5.0))
    short = [((1,), (1,), 1, 2), ((0,), (0,), 0, 1)]
    assert row_shares.bleu(10.0, short) == pytest.approx((30.0, -10.0))
    less_short = [((1,), (2,), 2, 3), ((0,), (0,), 0, 1)]
    assert row_shares.bleu(10.0, less_short) == pytest.approx((20.0, 0.0))


def test_rows_of_unequal_shape_are_refused() -> None:
    for answers in ("a", "aba"):
        with pytest.raises(ValueError, match="zip"):
            row_shares.macro_f1("ab", answers, ["a", "b"])
    for other in (((1,), (2, 1), 3, 3), ((1, 0), (2,), 3, 3)):
        with pytest.raises(ValueError, match="zip"):
            row_shares.bleu(10.0, [((1, 0), (2, 1), 3, 3), other])


texts = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd?")), min_size=1, max_size=30))
def test_the_mean_of_shares_of_macro_f1_is_the_score(pairs: list[tuple[str, str]]) -> None:
    metric, rows = answer_metrics()["macro_f1"], [Answer(given, (asked,)) for asked, given in pairs]
    assert metric.shares is not None
    assert np.mean(metric.shares(rows, tuple("abcd"))) == pytest.approx(metric.score(rows, tuple("abcd"))[0])


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_the_mean_of_shares_of_bleu_is_the_score(pairs: list[tuple[str, str]]) -> None:
    metric, rows = answer_metrics()["bleu"], [Answer(said, (asked,)) for said, asked in pairs]
    assert metric.shares is not None
    assert np.mean(metric.shares(rows, ())) == pytest.approx(metric.score(rows)[0])


@pytest.mark.parametrize("name", sorted(ALIKE))
def test_shares_foretell_the_score_of_drawn_rows(name: str) -> None:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(150):
        asked = list(random.choice(WORDS, 7)) if name == "bleu" else [str(random.choice(list("abcd")))]
        keep = random.random(len(asked)) < 0.8
        said = [word if k else str(random.choice(WORDS[:4])) for word, k in zip(asked, keep, strict=True)]
        rows.append(Answer(" ".join(said), (" ".join(asked),)))
    labels = () if name == "bleu" else tuple("abcd")
    metric = ALIKE[name]
    assert metric.shares is not None
    shares = np.array(metric.shares(rows, labels))
    truth, foretold = [], []
    for _ in range(60):
        picks = random.integers(len(rows), size=len(rows))
        truth.append(metric.score([rows[k] for k in picks], labels)[0])
        foretold.append(shares[picks].mean())
    assert np.corrcoef(truth, foretold)[0, 1] > 0.97
    assert np.std(foretold) == pytest.approx(np.std(truth), rel=0.15)
