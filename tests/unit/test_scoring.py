from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.evaluation.scoring import TaskScore, score_task
from everlora.metrics.answers import exact_match
from everlora.metrics.texts import normalise, normalise_all, unread, visible, words


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("World", "world"),
        ("  Sci/Tech. ", "scitech"),
        ("very   negative\n", "very negative"),
        ("not_entailment", "notentailment"),
        ("don't", "dont"),
        ("a - b", "a b"),
        ("\ta\u00a0b\u2003c\n", "a b c"),  # any Unicode white space collapses
        ("«Straße»", "«straße»"),  # only ASCII punctuation goes
        ("-", ""),
        ("...", ""),
        ("The answer is (-5).", "the answer is -5"),
        ("x=-5", "x -5"),
        ("−5", "-5"),  # the minus of typesetting
        ("+5", "5"),
        ("3.5.", "3.5"),
        ("-$.5", "-.5"),
        ("3,5", "3,5"),
        ("$1,234,567.00", "1234567.00"),
        ("50 %.", "50%"),
        ("1/2", "1/2"),
        ("10:30-11:00", "10:30-11:00"),
        ("2e-5", "2e-5"),
        ("COVID-19", "covid19"),  # a hyphen is no sign
        ("2. Two", "2 two"),
        ("", ""),
        ("a +-−*/^<># b, C++ and C#", "a − b c++ and c#"),  # every sign at once
        ("good\x1b\u200b", "good"),  # what nobody sees is no part of an answer
    ],
)
def test_normalisation(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text(max_size=30))
def test_normalisation_is_idempotent_and_leaves_no_punctuation(text: str) -> None:
    plain = normalise(text)
    assert normalise(plain) == plain
    if not any(character.isdecimal() for character in text) and not set(text) & set("+-−*/^<>#"):
        assert not set(plain) & set(string.punctuation)
        assert plain == normalise_all(visible(text.lower()))
    assert plain == plain.strip()
    assert "  " not in plain


@given(st.text("a1b2-−+*/^<>=#$€().½ ,%_e∞[:", max_size=9))
def test_normalisation_of_signs_is_idempotent(text: str) -> None:
    plain = normalise(text)
    assert normalise(plain) == plain == plain.strip()
    assert "  " not in plain


@given(
    st.lists(st.text("aéбz", min_size=2, max_size=4), min_size=1, max_size=4).map(list),
    st.lists(st.sampled_from([*" -/'!?:;,._&*~<>=+", " - ", " + ", ", ", ". "]), min_size=4, max_size=4),
)
def test_words_are_compared_as_by_the_scripts_of_o_lora(words: list[str], between: list[str]) -> None:
    text = words[0] + "".join(mark + word for word, mark in zip(words[1:], between, strict=False)) + "."
    assert normalise(text) == normalise_all(text)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [("World.", "world"), (" sports", "Sports"), ("Sci/Tech", "sci tech".replace(" ", "")), ("-", "-"), (" - ", "-"),
     ("", ""), ("A  b", "a b")],
)  # fmt: skip
def test_equal_answers(prediction: str, target: str) -> None:
    assert exact_match(prediction, target)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ("", "-"),  # the label of 131 rows of MNLI: silence is no answer to it
        (".", "-"),
        ("!!!", "-"),
        ("...", "world"),
        ("", "world"),
        ("-", "world"),
        ("world", "-"),
        ("world news", "world"),
        ("worl d", "world"),
        ("1 2", "12"),
        ("5", "-5"),
        ("35", "3.5"),
        ("50", "50%"),
        ("12", "1/2"),
        ("1e5", "1e-5"),
        ("x=5", "x=-5"),
    ],
)
def test_unequal_answers(prediction: str, target: str) -> None:
    assert not exact_match(prediction, target)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("One TWO, three-four 5a!", ["one", "two", "three", "four", "5a"]),
        ("ab x\u0323\u0301y cd", ["ab", "x\u0323\u0301y", "cd"]),  # accents that no one character holds
        ("e\u0301te\u0301", ["été"]),
        ("\u0301a b", ["\u0301a", "b"]),  # an accent with nothing before it begins a word
        ("好的 ab日c", ["好", "的", "ab", "日", "c"]),
        ("ひらがな1 2", ["ひ", "ら", "が", "な", "1", "2"]),
        ("ก็a", ["ก็", "a"]),
        ("½ ² x²", ["½", "²", "x²"]),
    ],
)
def test_words_of_any_script(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.lists(st.text("aéбz19", min_size=1, max_size=5), max_size=6))
def test_words_that_are_joined_by_marks_come_back(each: list[str]) -> None:
    assert words(" - ".join(each)) == each


def test_a_metric_that_cannot_read_most_answers_is_named() -> None:
    said = "rouge_l reads letters a-z and digits, and 2 of 3 answers have others, such as 'да'; use rouge_l_unicode"
    assert unread("rouge_l", ["да", "no", "нет"]) == said
    assert unread("rouge_l", ["да", "no"]) == unread("bleu", ["да"]) == unread("rouge_l", []) == ""
    assert unread("rouge_l", ["«—»", "“5”"]) == "", "no letters at all"
    for metric in ("rouge_l_stemmed", "rouge_l_stemmed_first"):
        assert repr("д" * 40) + ";" in unread(metric, ["д" * 41])


@given(st.text(max_size=12), st.text(max_size=12))
def test_matching_is_symmetric_and_reflexive(a: str, b: str) -> None:
    assert exact_match(a, a)
    assert exact_match(a, b) == exact_match(b, a)


# --- evaluate --------------------------------------------------------------------------------------------------------


class Echo:
    """A family that answers each row with its own input and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.modes: list[bool] = []

    def length(self, row: Example, task: Task) -> int:
        return len(row.input)

    def predict(self, model: nn.Module, task: Task, rows: list[Example], scoring: str) -> list[str]:
        self.batches.append([row.input for row in rows])
        self.modes.append(model.training)
        return [f" {row.input}\n" for row in rows]


ROWS = tuple(Example(text, target) for text, target in (("dddd", "dddd"), ("a", "x"), ("ccc", "CCC."), ("bb", "bb")))
TASK = Task(name="echo", train=ROWS, test=ROWS)


def score(batch_size: int, **kwargs: Any) -> tuple[TaskScore, Echo, nn.Module]:
    family, model = Echo(), nn.Linear(1, 1).train()
    return score_task(model, family, TASK, batch_size=batch_size, **kwargs), family, model  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_answers_stand_in_the_order_of_rows_for_every_batch_size(batch_size: int) -> None:
    done: list[int] = []
    scored, family, model = score(batch_size, progress=done.append)
    assert scored.predictions == ("dddd", "a", "ccc", "bb")
    assert scored.correct == (True, False, True, True)
    assert scored.score == 75.0
    assert [text for batch in family.batches for text in batch] == [
        "a",
        "bb",
        "ccc",
        "dddd",
    ]  # alike lengths share a batch
    assert sum(done) == 4
    assert set(family.modes) == {False}
    assert model.training  # as it was before


def test_a_metric_that_counts_blanks_is_given_them_where_the_prompt_ends_as_the_row_says() -> None:
    rows = tuple(Example(text, f" {text}\n") for text in ("a", "bb"))
    bare = Task(name="echo", train=rows, test=rows, form="prompted", metric="exact_match_trace")
    for task, wanted in ((bare, (" a\n", " bb\n")), (replace(bare, form="labelled"), ("a", "bb"))):
        scored = score_task(nn.Linear(1, 1), Echo(), task)  # type: ignore[arg-type]
        assert scored.predictions == wanted
        assert scored.score == 100.0 * (task is bare)


def test_what_is_called_right_is_what_the_metric_counts_as_written() -> None:
    rows = tuple(Example(text, target) for text, target in (("C", "C"), ("C", "C++"), ("c", "C")))
    task = Task(name="echo", train=rows, test=rows, metric="exact_match_raw")
    scored = score_task(nn.Linear(1, 1), Echo(), task)  # type: ignore[arg-type]
    assert scored.correct == (True, False, False)
    assert scored.score == pytest.approx(100 / 3)


def test_a_task_without_labels_cannot_be_scored_by_labels() -> None:
    with pytest.raises(DataError, match="no label set"):
        score(2, scoring="labels")
