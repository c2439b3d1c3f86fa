"""Metrics of one answer: by hand, against published values, and where variants of one name differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import everlora
from everlora.core import registry
from everlora.core.errors import DataError
from everlora.data.stream import TaskStream
from everlora.data.task import Example, Task
from everlora.learner.experiment import adapt_tasks
from everlora.metrics import Answer, AnswerMetric, answer_metrics, matrix_metrics
from everlora.metrics.answers import label_key, literals
from everlora.metrics.sari import sari
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import LearnerSpec, RunSpec


def value(metric: str, prediction: str, *accepted: str, source: str = "") -> float:
    return answer_metrics()[metric].row(Answer(prediction, accepted, source))


DIFFERENT = [
    *(
        ("-€5", "€5"),
        ("-x", "x"),
        ("x+1", "x-1"),
        ("<5", ">5"),
        ("-(5)", "5"),
        ("-½", "½"),
        ("- 5", "5"),
        ("C++", "C"),
    ),
    *(
        ("C#", "C"),
        ("A-", "A"),
        ("O+", "O-"),
        ("x<y", "x>y"),
        ("<=5", "<5"),
        ("x^2", "x2"),
        ("x/2", "x2"),
        ("−x", "x"),
    ),
    *(("18+", "18"), ("-[5]", "5"), ("- .5", ".5"), ("-∞", "∞"), ("x = - 5", "x = 5"), ("1 + 1", "1 1"), ("-π", "π")),
    *(("+", "-"), (":)", ":("), ("", "+")),
]
EQUAL = [
    *(("x + 1", "x+1"), ("x < 5", "x<5"), ("C++.", "c++"), ("e\u0301", "é"), ("…e\u0301", "…é"), ("-(5)", "-5")),
    *(("-€5", "−€5"), ("well-known", "wellknown"), ("COVID-19", "covid19"), ("F-16", "F16"), ("- world", "world")),
    *(("N/A", "na"), ("and/or", "andor"), ("salt + pepper", "salt pepper"), ("+5", "5"), ("<b>5</b>", "b5b")),
    *(("**5**", "5"), ("- a", "a"), ("(A)", "a"), ("#1", "1"), ("x -> 5", "x 5"), ("The world!", "the  world")),
]


@pytest.mark.parametrize(
    ("metric", "prediction", "accepted", "wanted"),
    [
        ("exact_match", "the World.", ("World", "the world"), 100),
        ("exact_match", "35", ("3.5",), 0),
        ("exact_match", "The 1,000.", ("the 1000",), 100),
        *(("exact_match", wrong, (right,), 0) for wrong, right in DIFFERENT),
        *(("exact_match", right, (wrong,), 0) for wrong, right in DIFFERENT),
        *(("exact_match", one, (other,), 100) for one, other in EQUAL),
        ("exact_match_empty", "35", ("3.5",), 100),  # as O-LoRA's scripts have it
        ("accuracy", "World.", ("world",), 100),
        ("accuracy", "the world", ("world",), 0),
        ("exact_match_first_line", "\n world.\nAnd so on", ("other", "World"), 100),
        ("exact_match_first_line", "And so on\nworld", ("world",), 0),
        ("exact_match", "\n world.\nAnd so on", ("World",), 0),
        ("exact_match_empty", "", ("-",), 100),  # as O-LoRA's scripts have it
        ("exact_match", "", ("-",), 0),
        ("exact_match_empty", "World.", ("world",), 100),
        ("exact_match_empty", "", ("world",), 0),
        ("exact_match_raw", "35", ("3.5",), 0),
        ("exact_match_raw", " 3.5\n", ("3.5",), 100),
        ("exact_match_raw", "a", ("A",), 0),
        ("accuracy_first_character", "B\nbecause", ("B\nA clause is",), 100),
        ("accuracy_first_character", "B because", ("B: a clause is",), 100),
        ("accuracy_first_character", "because", ("B",), 0),
        ("accuracy_first_character", "", ("",), 0),
        # "the cat sat" in "the cat on the mat sat": LCS 3, precision 3/3, recall 3/6, F = 2/3
        ("rouge_l", "the cat sat", ("the cat on the mat sat",), 200 / 3),
        ("rouge_l", "the cat sat", ("a dog", "the cat sat"), 100),
        ("rouge_l", "", ("a dog",), 0),
        ("rouge_l", "cats running", ("cat runs",), 0),
        ("rouge_l_stemmed", "cats running", ("cat runs",), 100),
        ("rouge_l_stemmed_first", "cats running", ("cat runs", "a dog"), 100),
        ("rouge_l_stemmed_first", "cats running", ("a dog", "cat runs"), 0),
        ("rouge_l_stemmed", "cats running", ("a dog", "cat runs"), 100),
        ("rouge_l", "Öl", ("Ül",), 100),  # to it, both are the letter l
        ("rouge_l_unicode", "Öl", ("Ül",), 0),
        ("rouge_l_unicode", "O\u0308L!", ("Öl",), 100),
        ("rouge_l_unicode", "да", ("Да.",), 100),
        ("rouge_l_unicode", "好了", ("好的",), 50),
        ("rouge_l_unicode", "好的", ("好的",), 100),
        ("rouge_l_unicode", "हिन्दी में", ("हिन्दी",), 200 / 3),
        ("rouge_l_unicode", "...", ("...",), 100),
        ("rouge_l_unicode", "the cat sat", ("the cat on the mat sat",), 200 / 3),
        ("exact_match_trace", " A", ("A",), 0),
        ("exact_match_trace", "", ("A",), 0),
        ("exact_match_trace", "A", ("A",), 100),
        ("first_character_trace", "B\nbecause", ("B\nA clause is",), 100),
        ("first_character_trace", "B because", ("B\nA clause is",), 100),
        ("first_character_trace", " B", ("B",), 0),
        ("first_character_trace", "", ("B",), 0),
        ("rouge_l_trace", "", ("a dog",), 0),
        ("rouge_l_trace", "...", ("a dog",), 0),  # for which the package raises an error
        ("edit_similarity_trace", "", ("",), 0),
        ("edit_similarity_trace", "x = '<STR_LIT:a<NUM_LIT>b>'", ("x = 'a0b'",), 100),
        # abc -> abd: one deletion and one insertion of six characters
        ("edit_similarity", "abc", ("abd",), 100 * (1 - 2 / 6)),
        ("edit_similarity_rounded", "abc", ("abd",), 67),
        ("edit_similarity", "x = '<STR_LIT:hi>' + <NUM_LIT>", ("x = 'hi' + 0",), 100),
        ("bleu", "the cat sat on the mat", ("the cat sat on the mat",), 100),
        ("macro_f1", "World", ("world",), 100),
        ("exact_match", "good", ("go\u200bod\ufeff",), 100),
        ("exact_match_raw", "good", ("go\u200bod",), 0),
    ],
)
def test_by_hand(metric: str, prediction: str, accepted: tuple[str, ...], wanted: float) -> None:
    assert value(metric, prediction, *accepted) == pytest.approx(wanted, abs=1e-9)


def test_literals_of_code() -> None:
    code = "f ( '<STR_LIT>' , '<STR_LIT:a>b>' , <NUM_LIT:-1> , '<CHAR_LIT>' ) <EOL>"
    assert literals(code) == "f ( '' , 'ab>' , -1 , '' ) <EOL>"


# --- SARI ----------------------------------------------------------------------------------------------------------

SOURCE = "About 95 species are currently accepted."
REFERENCES = (
    "About 95 species are currently known.",
    "About 95 species are now accepted.",
    "95 species are now accepted.",
)


def test_sari_as_published_for_the_papers_example() -> None:
    assert sari(SOURCE, "About 95 you now get in.", REFERENCES) == pytest.approx(26.953601953601954, abs=1e-10)


def test_sari_of_an_empty_answer_is_25_for_trace() -> None:
    # S = R: nothing is kept, F = 0; what is deleted should stay, P = 0; nothing is to be added, F = 1, but for order
    # 1, where the empty answer of the metric that TRACE loads adds one word, which is empty.
    same = "a b c d e"
    assert value("sari_trace", "", same, source=same) == pytest.approx(25.0)
    assert value("sari", "", same, source=same) == pytest.approx(100 / 3)
    assert value("sari_trace", "a b", same, source=same) == value("sari", "a b", same, source=same)


def test_sari_by_hand() -> None:
    # S = a b, O = a c, R = a c d. Order 1: keep {a} 1, add {c} of {c}, wanted {c, d}: F = 2·1·½/(3/2) = 2/3;
    # delete {b} 1. Order 2: S {ab}, O {ac}, R {ac, cd}: nothing kept and nothing to keep, 1; add F = 2/3; delete 1.
    # Order 3: S and O have none, R {acd}: keep 1, add: precision of nothing 1, recall 0: F = 0, delete 1. Order 4: 1.
    wanted = 100 / 12 * ((1 + 2 / 3 + 1) + (1 + 2 / 3 + 1) + (1 + 0 + 1) + 3)
    assert sari("a b", "a c", ["a c d"]) == pytest.approx(wanted, abs=1e-12)


def test_sari_of_keeping_the_wrong_word() -> None:
    # S = a b, O = a, R = b. Order 1: of {a} nothing is right, of {b} nothing is kept: F = 0; nothing to add, 1; b was
    # deleted wrongly, 0. Order 2: {ab} is rightly gone, and nothing else was to do: 3. Orders 3 and 4 have nothing: 3.
    assert sari("a b", "a", ["b"]) == pytest.approx(100 * (1 + 3 + 3 + 3) / 12)


TEXTS = st.lists(st.sampled_from("abcdefgh"), max_size=8, unique=True).map(" ".join)


@given(TEXTS, TEXTS, TEXTS)
def test_sari_is_best_for_the_reference_itself(source: str, answer: str, reference: str) -> None:
    assert sari(source, reference, [reference]) == pytest.approx(100)
    assert -1e-9 <= sari(source, answer, [reference]) <= 100 + 1e-9
    assert sari(source, answer, [reference]) == pytest.approx(sari(source, answer, [reference, reference]))


# --- TRACE ---------------------------------------------------------------------------------------------------------

# Values that TRACE's own scoring gives. rouge_l_trace: package rouge 1.0.1, on rows of MeetingBank (Hu et al. 2023,
# CC BY-NC-ND 4.0) and texts made up for this test. edit_similarity_trace: fuzzywuzzy 0.18 with difflib after TRACE's
# post-processing, on lines of Py150 (Raychev et al. 2016).
PUBLISHED = [json.loads(line) for line in (Path(__file__).parents[1] / "data/trace.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['metric']}-{row['kind']}")
def test_traces_numbers_are_traces(row: dict[str, Any]) -> None:
    assert value(row["metric"], row["prediction"], row["target"]) == pytest.approx(row["value"], abs=1e-9)


def test_rouge_of_latin_letters_is_refused_where_most_answers_have_others() -> None:
    def task(metric: str, *targets: str, instead: str | None = None) -> Task:
        rows = [Example("a", target) for target in targets]
        stream = TaskStream(name="mine", tasks=(Task(name="t", train=rows, test=rows, metric=metric),))
        spec = RunSpec(model="tiny-llama", method="seqlora", benchmark="builtin", metric=instead)
        return adapt_tasks(stream, spec).tasks[0]

    with pytest.raises(
        DataError, match=r"'t': rouge_l reads letters a-z .* 2 of 3 answers .*'好的'; use rouge_l_unicode"
    ):
        task("rouge_l", "ok", "好的", "да")
    with pytest.raises(DataError, match="'Ül'; use rouge_l_unicode"):  # to it, Öl is the same word
        task("rouge_l_stemmed", "Ül")
    assert task("rouge_l", "ok", "yes", "да").metric == "rouge_l"
    assert task("rouge_l_unicode", "好的").metric == "rouge_l_unicode"
    # What the message says is what --metric does, whatever a file has chosen.
    assert task("rouge_l", "好的", instead="rouge_l_unicode").metric == "rouge_l_unicode"
    with pytest.raises(DataError, match="use rouge_l_unicode"):
        task("rouge_l_unicode", "好的", instead="rouge_l")


def test_only_traces_metrics_are_given_the_blanks_around_an_answer() -> None:
    """TRACE's scripts compare texts as they are; everybody else strips them."""
    assert {name for name, metric in answer_metrics().items() if metric.blanks} == {
        "exact_match_trace",
        "first_character_trace",
        "rouge_l_trace",
        "edit_similarity_trace",
        "sari_trace",
    }


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("3.5", "35", {"exact_match_empty"}),
        ("-", "...", set()),  # what normalises to nothing is what is written
        ("-", " -\n", {"exact_match", "exact_match_empty", "exact_match_raw", "exact_match_trace"}),
        ("Yes!", "yes", {"exact_match", "exact_match_empty"}),
        ("yes", "no", set()),
    ],
)
def test_labels_that_a_metric_takes_for_one(one: str, other: str, alike: set[str]) -> None:
    metrics = ("exact_match", "exact_match_empty", "exact_match_raw", "exact_match_trace")
    assert {name for name in metrics if label_key(one, name) == label_key(other, name)} == alike


# --- over all rows -------------------------------------------------------------------------------------------------


def rows(*pairs: tuple[str, str]) -> list[Answer]:
    return [Answer(prediction, (target,)) for prediction, target in pairs]


def test_macro_f1_by_hand() -> None:
    # yes: 2 asked, 1 found, 2 answered: F = 1/2. no: 2 asked, 1 found, 1 answered: F = 2/3. "perhaps" is no class.
    asked = rows(("Yes.", "yes"), ("perhaps", "yes"), ("no", "no"), ("yes", "no"))
    score, each = answer_metrics()["macro_f1"].score(asked, ("yes", "no", "maybe"))
    assert score == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert each == (100, 0, 100, 0)


@pytest.mark.parametrize("labels", [("+", "-"), (":)", ":("), ("C", "C++"), ("...", "?")])
def test_macro_f1_tells_labels_of_signs_apart(labels: tuple[str, str]) -> None:
    one, other = labels
    metric = answer_metrics()["macro_f1"]
    right = [Answer(one, (one,)), Answer(other, (other,))]
    assert metric.score(right, labels)[0] == 100
    assert metric.score([Answer(other, (one,)), Answer(one, (other,))], labels)[0] == 0
    # of `one` 1 hit in 1 target and 1 answer; of `other` 0 hits: an empty answer is no label
    rows = [Answer(one, (one,)), Answer("", (other,))]
    assert metric.score(rows, labels)[0] == 50
    assert metric.shares is not None
    assert sum(metric.shares(rows, labels)) / 2 == pytest.approx(50)


def test_corpus_bleu_is_not_the_mean_and_takes_several_references() -> None:
    asked = [
        Answer("the cat sat on the mat today", ("the cat sat on the mat",)),
        Answer("a dog ran", ("x", "a dog ran")),
    ]
    score, each = answer_metrics()["bleu"].score(asked)
    # n-grams that match: 9 of 10, 7 of 8, 5 of 6, 3 of 4... the second row has 3, 2, 1, 0 of its own.
    precisions = [(6 + 3) / (7 + 3), (5 + 2) / (6 + 2), (4 + 1) / (5 + 1), 3 / 4]
    product = 1.0
    for p in precisions:
        product *= p
    assert score == pytest.approx(100 * product**0.25)  # 10 words, references of 9: no brevity penalty
    assert score != pytest.approx(sum(each) / 2)


@pytest.mark.parametrize("metric", answer_metrics())
def test_every_metric_is_a_percentage_and_the_target_itself_is_full_marks(metric: str) -> None:
    right = [Answer("one two three four", ("one two three four",), "one two three four five")] * 3
    wrong = [Answer("zz", ("one two three four",), "one two three four five")] * 3
    found = answer_metrics()[metric]
    assert found.id == metric
    assert found.formula
    assert found.source
    assert found.score(right)[0] == pytest.approx(100)
    score, each = found.score(wrong)
    assert 0 <= score < 50
    assert len(each) == 3


# --- tasks ---------------------------------------------------------------------------------------------------------


def test_a_task_keeps_its_digest_unless_its_metric_or_answers_say_more() -> None:
    def task(also: tuple[str, ...] = (), **more: str) -> Task:
        one = (Example("a", "b", also),)
        return Task(name="t", train=one, test=one, **more)  # type: ignore[arg-type]

    assert task().digest() == "c24180d931a7fd0e"  # as before metrics were data
    assert len({task().digest(), task(metric="sari").digest(), task(also=("c",)).digest()}) == 3
    with pytest.raises(DataError, match="unknown metric 'rouge'; did you mean 'rouge_l'"):
        task(metric="rouge")
    assert Example([{"role": "user", "content": "hi"}], "yo", ("hey",)).answered("x") == Answer(
        "x", ("yo", "hey"), "hi"
    )


def _raises(row: Answer) -> float:
    raise ValueError("no\n\x1b[31mred")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (lambda row: float("nan"), "gives nan, which is no percentage"),
        (lambda row: float("inf"), "gives inf, which is no percentage"),
        (lambda row: None, "gives None, which is no percentage"),
        (lambda row: 250, "gives 250, which is no percentage"),
        (lambda row: 100.01, "gives 100.01, which is no percentage"),
        (lambda row: -0.01, "gives -0.01, which is no percentage"),
        (lambda row: True, "gives True, which is no percentage"),
        (lambda row: "100", "gives a str, which is no percentage"),
        (_raises, r"fails: ValueError: no \u001b[31mred"),
    ],
)
def test_a_metric_of_ones_own_that_gives_no_percentage_is_one_line_before_anything_is_learned(
    row: Any, words: str
) -> None:
    with registry.isolated():
        everlora.metric("own", formula="f", source="s")(row)
        everlora.metric("own_corpus", formula="f", source="s", corpus=lambda rows, labels: row(rows[0]),
                        shares=lambda rows, labels: [row(rows[0])] * 2)(lambda row: 0.0)  # fmt: skip
        answers = [Answer("a", ("a",)), Answer("b", ("b",))]
        task = Task(name="t", train=[Example("a", "b")], test=[Example("a", "b")], metric="own")
        for refused in (
            lambda: answer_metrics()["own"].score(answers),
            lambda: answer_metrics()["own_corpus"].score(answers),
            lambda: adapt_tasks(TaskStream(name="s", tasks=(task,)), LearnerSpec(model="tiny-llama")),
        ):
            with pytest.raises(DataError) as caught:
                refused()
            assert words in str(caught.value)
            assert len(str(caught.value).splitlines()) == 1


def test_rounding_may_carry_a_percentage_a_millionth_beyond_its_ends() -> None:
    def scored(value: float) -> float:
        metric = replace(answer_metrics()["exact_match"], row=lambda row: value)
        return metric.score([Answer("a", ("a",))])[0]

    assert [scored(value) for value in (100 + 5e-7, -5e-7, 0, 100)] == [100 + 5e-7, -5e-7, 0, 100]
    for value in (100 + 2e-6, -2e-6, 100.5, -0.5):
        with pytest.raises(DataError, match="no percentage from 0 to 100"):
            scored(value)


@pytest.mark.parametrize("value", [float("nan"), "3", True, ValueError("\x1b[31m")])
def test_a_metric_of_the_matrix_that_gives_no_number_is_one_line(value: Any) -> None:
    def own(matrix: Any, references: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    with registry.isolated():
        everlora.metric("own_matrix", formula="f", source="s", of="matrix")(own)
        with pytest.raises(DataError, match="the metric 'own_matrix'") as caught:
            matrix_metrics()["own_matrix"](ScoreMatrix(("a",), (10,), ((90,),)))
        assert "\x1b" not in str(caught.value)


def test_what_rounding_does_to_a_percentage_is_let_through() -> None:
    for value in (100 + 1e-9, -1e-9, 0, 100):
        metric = replace(answer_metrics()["exact_match"], row=lambda row, value=value: value)
        assert metric.score([Answer("a", ("a",))]) == (value, (value,))


def test_only_the_metrics_of_trace_count_white_space() -> None:
    counted = {name for name, known in answer_metrics().items() if known.blanks}
    assert counted == {name for name in answer_metrics() if name.endswith("_trace")}
    assert not AnswerMetric(id="own", formula="f", source="s", row=lambda row: 0.0).blanks


def test_a_metric_of_rows_has_no_shares_of_a_corpus_measure() -> None:
    assert answer_metrics()["exact_match"].shares_of([Answer("a", ("a",))], ()) == ()
    with pytest.raises(DataError, match="'exact_match' is not defined without any rows; score at least one"):
        answer_metrics()["exact_match"].score([])


def test_shares_of_ones_own_are_one_number_for_each_row() -> None:
    answers = [Answer("a", ("a",)), Answer("b", ("b",))]
    for shares in ((1.0,), (1.0, float("nan")), (1.0, None)):
        metric = replace(answer_metrics()["macro_f1"], shares=lambda rows, labels, shares=shares: shares)
        with pytest.raises(DataError, match="one number for each of the 2 rows"):
            metric.shares_of(answers, ())
    assert answer_metrics()["macro_f1"].shares_of(answers, ()) == (100.0, 100.0)
    assert answer_metrics()["exact_match"].shares_of(answers, ()) == ()  # its rows are the shares


def test_a_metric_that_counts_right_answers_as_wrong_is_refused() -> None:
    def task(metric: str, *targets: str) -> Task:
        rows = [Example("q", one) for one in targets]
        stream = TaskStream(name="mine", tasks=(Task(name="t", train=rows, test=rows, metric=metric),))
        return adapt_tasks(stream, RunSpec(model="tiny-llama", method="seqlora", benchmark="builtin")).tasks[0]

    first, two = "exact_match_first_line", "a\nb"
    refused = f"task 't': {first} counts 1 of 1 different right answers as wrong, .* 'a.*nb'; use exact_match"
    with pytest.raises(DataError, match=refused):
        task(first, two)
    with pytest.raises(DataError, match="2 of 3 different right answers as wrong"):
        task(first, two, two, "fine", "\nc\nd")
    assert task(first, two, "fine").metric == first  # said before training, see test_writers
    assert task(first, "\na\n", " b").metric == first
    assert task("exact_match", two).metric == "exact_match"
    assert (value(first, two, two), value("exact_match", two, two)) == (0, 100)
