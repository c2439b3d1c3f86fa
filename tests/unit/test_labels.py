"""What labels and columns mean: numbers that are names, spellings that look alike, and free text by other names."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlora.benchmarks import open_stream
from everlora.core.errors import DataError
from everlora.data import spelling
from everlora.data.spelling import metric_for
from everlora.data.task import Example, Task
from everlora.data.tasks import task_from_dataset
from everlora.metrics import Answer, answer_metric, answer_metrics
from everlora.metrics.label_keys import key_of
from everlora.metrics.texts import visible

NUMBERS = ["1", "2", "3", "4", "5"]


def rows(*labels: Any, word: str = "item") -> list[dict[str, Any]]:
    return [{"text": f"the {word} number {n}", "label": label} for n, label in enumerate(labels)]


def csv(found: list[dict[str, Any]]) -> str:
    return "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in found)


def lines(found: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in found)


def opened(folder: Path, more: str = "", **files: str) -> Task:
    names = {}
    for split, text in files.items():
        names[split] = f"{split}.csv" if text.startswith("text,label") else f"{split}.jsonl"
        (folder / names[split]).write_text(text, encoding="utf-8")
    listed = ", ".join(f"{split}: {name}" for split, name in names.items())
    (folder / "mine.yaml").write_text(f"tasks:\n  - {{name: t, {listed}{more}}}\n", encoding="utf-8")
    return open_stream(folder / "mine.yaml").tasks[0]


@pytest.mark.parametrize("train", [csv, lines])
@pytest.mark.parametrize("test", [csv, lines])
def test_ratings_mean_the_same_in_every_kind_of_file(train: Any, test: Any, tmp_path: Path) -> None:
    learned, asked = rows(1, 2, 3), rows(1, 2, 3, word="thing")
    task = opened(tmp_path, ", labels: ['1','2','3','4','5']", train=train(learned), test=test(asked))
    assert [row.target for row in task.train] == [row.target for row in task.test] == ["1", "2", "3"]
    task = opened(tmp_path, train=train(learned), test=test(asked))
    assert [row.target for row in task.test] == ["1", "2", "3"]


def test_numbers_that_are_no_names_are_places() -> None:
    task = task_from_dataset("t", rows(0, 1, "1"), rows(1, word="thing"), labels=["bad", "good"])
    assert [row.target for row in task.train] == ["bad", "good", "good"]


def test_two_readings_are_refused_with_both() -> None:
    said = r"two ways: 1 \(t train, row 2\) is the label '1', but 0 \(t train, row 1\) would be label number 0, '1'"
    with pytest.raises(DataError, match=said):
        task_from_dataset("t", rows(0, 1, 2), rows(3, word="thing"), labels=NUMBERS)
    with pytest.raises(DataError, match="two ways"):  # one split alone would not show it
        task_from_dataset("t", rows(1, 2), rows(0, word="thing"), labels=NUMBERS)


def test_numbers_of_a_class_label_are_places_whatever_its_names() -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=NUMBERS)})
    train, test = (Dataset.from_list(rows(0, 1, 4, word=word), features=kinds) for word in ("item", "thing"))
    task = task_from_dataset("t", train, test)
    assert [row.target for row in task.train] == ["1", "2", "5"]


def test_a_number_of_thousands_of_digits_is_one_line(tmp_path: Path) -> None:
    long = "9" * 5000
    task = task_from_dataset("t", rows(*[long, "b"] * 9), rows("b", word="thing"))
    assert set(task.labels) == {long, "b"}
    with pytest.raises(DataError, match="is outside the label set") as caught:
        task_from_dataset("t", rows(long), rows("a", word="thing"), labels=["a", "b"])
    assert len(str(caught.value)) < 2000
    with pytest.raises(DataError, match="found a number of more than 900 digits"):
        task_from_dataset("t", rows(10**5000), rows("a", word="thing"), labels=["a", "b"])
    with pytest.raises(DataError, match="is outside the label set"):
        opened(tmp_path, ", labels: [a, b]", train=csv(rows(long, "a")), test=csv(rows("a", word="thing")))


def test_007_is_a_name_and_no_number() -> None:
    with pytest.raises(DataError, match="label '01' is outside the label set"):
        task_from_dataset("t", rows("01"), rows("1", word="thing"), labels=["bad", "good"])


@pytest.mark.parametrize("joint", ["text,label", "Text,label", "label,text", "\ufefftext,label"])
def test_a_header_in_the_middle_is_no_row(joint: str, tmp_path: Path) -> None:
    first = csv(rows("good", "bad", "good"))
    again = f"{joint}\n" + csv(rows("bad", word="other")).partition("\n")[2]
    with pytest.raises(DataError, match=r"train.csv, row 5: the header stands here again"):
        opened(tmp_path, train=first + again, test=csv(rows("bad", word="thing")))


def test_invisible_and_decomposed_characters_make_no_second_label(tmp_path: Path) -> None:
    learned = rows("good", "good\u200b", "caf\u00e9", "cafe\u0301", "\ufeffgood")
    task = opened(tmp_path, train=lines(learned), test=lines(rows("good", "caf\u00e9", word="thing")))
    assert task.labels == ("good", "caf\u00e9")
    assert task.notes == (
        "3 labels hold invisible or decomposed characters and are read without: 'good\\u200b' as 'good'",
    )
    named = opened(
        tmp_path, ', labels: ["cafe\u0301", good]', train=lines(learned), test=lines(rows("good", word="x"))
    )
    assert named.labels == ("caf\u00e9", "good")


def test_labels_that_look_alike_are_told_by_code_points() -> None:
    cook = "\U0001f468\u200d\U0001f373"
    with pytest.raises(DataError, match=r"label '\\U0001f468\\u200d\\U0001f373' is outside the label set"):
        task_from_dataset("t", rows("a", "b"), rows(cook, word="thing"))


CODES = (
    0x00,
    0x7F,
    0xAD,
    0x34F,
    0x61C,
    0x115F,
    0x180E,
    0x200B,
    0x200C,
    0x200D,
    0x2061,
    0x2063,
    0x206A,
    0x3164,
    0xFE0F,
)
UNSEEN = [chr(code) for code in (*CODES, 0xFFF9, 0xE0020)]


@pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)
def test_no_invisible_character_makes_a_second_label(unseen: str) -> None:
    found = rows("good", f"good{unseen}", f"go{unseen}od", f"{unseen}good", "bad")
    task = task_from_dataset("t", found, rows("good", f"good{unseen}", word="thing"))
    assert (task.labels, [row.target for row in task.test]) == (("good", "bad"), ["good", "good"])


@pytest.mark.parametrize(
    "label",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, a joiner within the word
        "\u0d28\u0d4d\u200d",  # Malayalam, at the end of the word
        "\u2764\ufe0f",
        "1\ufe0f\u20e3",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "\u845b\U000e0100",
    ],
    ids=ascii,
)
def test_invisible_characters_with_a_meaning_stay(label: str) -> None:
    assert visible(label) == label


@pytest.mark.parametrize(
    ("one", "other"),
    [("\u2764", "\u2764\ufe0f"), ("\uff11", "1"), ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e")],
    ids=ascii,
)
def test_labels_that_look_alike_are_refused_by_code_points(one: str, other: str) -> None:
    said = f"{one!a} and {other!a} differ in invisible characters or in the width"
    with pytest.raises(DataError, match=re.escape(said)):
        task_from_dataset("t", rows(one, other), rows(one, word="thing"))
    with pytest.raises(DataError, match=re.escape(said)):
        task_from_dataset("t", rows(one), rows(one, word="thing"), labels=[one, other], metric="exact_match_raw")
    assert visible(one) != visible(other)  # and so neither is read as the other in silence


@pytest.mark.parametrize("labels", [["-1", "1"], ["C", "C++", "C#"], ["A", "A-", "A+"], ["<5", ">5"]])
def test_signs_that_mean_something_are_seen_by_the_default_metric(labels: list[str]) -> None:
    task = task_from_dataset("t", rows(*labels * 9), rows(*labels, word="thing"))
    assert (task.metric, set(task.labels)) == ("exact_match", set(labels))
    for label in labels:
        scores = {other: answer_metric(task.metric).row(Answer(other, (label,))) for other in labels}
        assert scores == {other: 100.0 * (other == label) for other in labels}


@pytest.mark.parametrize("labels", [["(a)", "a", "a!"], ["yes", "yes!"]])
def test_labels_that_differ_in_signs_are_scored_by_a_metric_that_sees_them(labels: list[str]) -> None:
    task = task_from_dataset("t", rows(*labels * 9), rows(*labels, word="thing"))
    assert set(task.labels) == set(labels)
    metric = answer_metric(task.metric)
    for label in labels:
        scores = {other: metric.row(Answer(other, (label,))) for other in labels}
        assert scores == {other: 100.0 * (other == label) for other in labels}
    again = replace(task, metric="exact_match_first_line")  # as --metric does
    assert again.metric == "exact_match_raw"
    assert "to exact_match_first_line the labels" in again.notes[-1]


def test_a_rare_label_that_differs_in_a_sign_is_still_a_slip() -> None:
    with pytest.raises(DataError, match=r"label 'good!' .* looks like a slip of 'good'"):
        task_from_dataset("t", rows(*["good", "bad"] * 20, "good!"), rows("good", word="thing"))


def test_a_metric_that_tells_labels_apart_stays() -> None:
    one = [Example("a", "good"), Example("b", "bad")]
    task = Task(name="t", train=one, test=one, labels=("good", "bad"), metric="macro_f1")
    assert (task.metric, task.notes) == ("macro_f1", ())


@pytest.mark.parametrize(
    ("question", "answer"),
    [("question", "answer"), ("query", "reply"), ("instruction", "response"), ("prompt", "response")],
)
def test_questions_and_answers_are_free_text(question: str, answer: str) -> None:
    found = [{question: f"the item number {n}", answer: f"{n} good"} for n in range(3)]
    task = task_from_dataset("t", found[:2], found[2:])
    assert task.labels == ()
    assert task.test[0] == Example("the item number 2", "2 good")


def test_columns_of_free_text_are_free_by_any_key(tmp_path: Path) -> None:
    found = [{"question": f"the item number {n}", "answer": f"{n} good"} for n in range(4)]
    for more in ("text_column: question, label_column: answer", "prompt_column: question, completion_column: answer"):
        task = opened(tmp_path, f", {more}", train=lines(found[:2]), test=lines(found[2:]))
        assert task.labels == ()
        assert task.test[0].target == "2 good"


def test_a_context_beside_a_question_is_not_lost() -> None:
    found = [{"question": f"q {n}", "context": "here", "answer": "a"} for n in range(2)]
    with pytest.raises(DataError, match="column 'context' would change the prompt"):
        task_from_dataset("t", found[:1], found[1:])
    dolly = [{"instruction": f"Do {n}.", "context": "here", "response": "done"} for n in range(2)]
    assert task_from_dataset("t", dolly[:1], dolly[1:]).train[0].input == "Do 0.\nhere"


def test_columns_can_be_named_and_the_message_says_so() -> None:
    found = [{"ask": f"ask {n}", "tell": "it", "role": "Be short."} for n in range(2)]
    with pytest.raises(DataError, match="prompt_column and completion_column, messages_column, system_column"):
        task_from_dataset("t", found[:1], found[1:])
    task = task_from_dataset("t", found[:1], found[1:], prompt_column="ask", completion_column="tell")
    assert (task.form, task.train[0]) == ("prompted", Example("ask 0", "it"))
    chat = task_from_dataset(
        "t", found[:1], found[1:], prompt_column="ask", completion_column="tell", system_column="role"
    )
    system, user = {"role": "system", "content": "Be short."}, {"role": "user", "content": "ask 0"}
    assert (chat.form, chat.train[0]) == ("chat", Example([system, user], "it"))
    talks = [{"talk": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "b"}]} for n in range(2)]
    assert task_from_dataset("t", talks[:1], talks[1:], messages_column="talk").train[0].target == "b"
    with pytest.raises(DataError, match="one way of writing rows, not of several"):
        task_from_dataset("t", found[:1], found[1:], prompt_column="ask", label_column="tell")
    with pytest.raises(DataError, match="unknown argument 'promt_column'; did you mean 'prompt_column'"):
        task_from_dataset("t", found[:1], found[1:], promt_column="ask")


@pytest.mark.parametrize("kind", ["map", "list", "unknown", "garbage"])
def test_an_odd_column_does_not_make_parquet_unsound(kind: str, tmp_path: Path) -> None:
    for name, word in (("a", "item"), ("b", "thing")):
        columns: dict[str, Any] = {"text": [f"{word} 0", f"{word} 1"], "label": [0, 1]}
        about: Any = {"text": {"_type": "Value"}, "label": {"_type": "ClassLabel", "names": ["bad", "good"]}}
        if kind == "map":
            columns["meta"] = pa.array([[("k", 1)], [("k", 2)]], pa.map_(pa.string(), pa.int64()))
        if kind == "list":  # as `datasets` writes a list of texts, and a list of objects
            columns["tags"] = [["x"], ["y"]]
            about = {"tags": [{"_type": "Value", "dtype": "string"}], "more": "odd", **about}
        if kind == "unknown":
            about["odd"] = {"_type": "LabelV9"}
        told = b"[1" if kind == "garbage" else json.dumps({"info": {"features": about}}).encode()
        pq.write_table(pa.table(columns).replace_schema_metadata({b"huggingface": told}), tmp_path / f"{name}.parquet")
    (tmp_path / "mine.yaml").write_text("tasks:\n  - {name: t, train: a.parquet, test: b.parquet}\n")
    (task,) = open_stream(tmp_path / "mine.yaml")
    assert task.labels == (("0", "1") if kind == "garbage" else ("bad", "good"))


def test_a_label_of_two_lines_is_refused_by_a_metric_that_reads_one() -> None:
    learned, asked = rows("yes\nsir", "no"), rows("yes\nsir", word="thing")
    with pytest.raises(DataError, match=r"the label 'yes\\nsir' has several lines, and the metric 'exact_match_first"):
        task_from_dataset("t", learned, asked, metric="exact_match_first_line")
    assert answer_metric("exact_match_first_line").row(Answer("yes\nsir", ("yes\nsir",))) == 0
    assert task_from_dataset("t", learned, asked).labels == ("yes\nsir", "no")


def test_a_class_that_test_fraction_takes_away_is_named(tmp_path: Path) -> None:
    found = rows(*["good"] * 3, *[f"rare {number}" for number in range(9)])
    (tmp_path / "train.jsonl").write_text(lines(found))
    (tmp_path / "mine.yaml").write_text("tasks:\n  - {name: t, train: train.jsonl, test_fraction: 0.5}\n")
    said = r"train.jsonl, row \d+: label 'rare \d' has so few rows that test_fraction 0.5 puts all of them into test"
    with pytest.raises(DataError, match=said):
        open_stream(tmp_path / "mine.yaml")
    labels = ", ".join(["good", *(f"rare {number}" for number in range(9))])
    text = f"tasks:\n  - {{name: t, train: train.jsonl, test_fraction: 0.5, labels: [{labels}]}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert len(open_stream(tmp_path / "mine.yaml").tasks[0].test) == 6


TWINS = [
    *(
        "Öl",
        "Ül",
        "run",
        "runs",
        "B because",
        "B since",
        "a b",
        "b a",
        "x &amp; y",
        "x & y",
        "C",
        "C++",
        "yes",
        "Yes!",
    ),
    *("-5", "5", "+", "-", "да", "нет", "<STR_LIT:x>", "x", "a\nb", "a\nc", "one. two", "two. one", "1,000", "1000"),
    *("q" * 300, "q" * 299 + "r", "q" * 250),
]


@pytest.mark.parametrize("metric", sorted(answer_metrics()))
def test_twins_among_many_labels_are_those_of_comparing_each_with_each(metric: str) -> None:
    row = answer_metric(metric).row
    for one, other in itertools.permutations(TWINS, 2):
        full = row(Answer(other, (other,)))
        twins = 0 < full <= row(Answer(one, (other,)))
        assert (spelling._twins(metric, [one, other]) is not None) == twins
        if twins:
            key = key_of(metric)
            assert key(one) == key(other) is not None, (one, other)


@pytest.mark.parametrize("metric", ["edit_similarity_rounded", "edit_similarity_trace"])
def test_labels_of_a_hundred_characters_may_round_to_one(metric: str) -> None:
    """One character more in 99 + 100 is 1/199 of both, more than half a per cent; in 100 + 101 it is less."""
    row, key = answer_metric(metric).row, key_of(metric)
    short, edge, long = ("q" * n for n in (99, 100, 101))
    assert row(Answer(short, (edge,))) == 99
    assert key(short) != key(edge)
    assert row(Answer(edge, (long,))) == 100
    assert key(edge) == key(long)


@pytest.mark.parametrize(
    ("metric", "one", "other", "twins"),
    [
        *((metric, "q" * 100, "q" * 101, True) for metric in ("edit_similarity_rounded", "edit_similarity_trace")),
        *((metric, "q" * 99, "q" * 100, False) for metric in ("edit_similarity_rounded", "edit_similarity_trace")),
        *((metric, "B: a", "B a", True) for metric in ("accuracy_first_character", "first_character_trace")),
        ("accuracy_first_character", " B", "B", True),
        ("first_character_trace", " B", "B", False),
        ("rouge_l", "runs", "run", False),
        ("rouge_l_stemmed", "runs", "run", True),
    ],
)
def test_keys_of_labels(metric: str, one: str, other: str, twins: bool) -> None:
    """Labels with one key are compared; 1 of 201 characters rounds to 100 %, 1 of 199 does not."""
    key, row = key_of(metric), answer_metric(metric).row
    assert {row(Answer(a, (b,))) == 100 for a, b in ((one, other), (other, one))} == {twins}
    assert (key(one) == key(other)) == twins


def test_twins_among_thousands_of_labels_are_found_by_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"word{'abcdefghij'[n % 10]}{n}" for n in range(3000)]
    compared = []
    metric = answer_metric("rouge_l")
    counted = replace(metric, row=lambda row: compared.append(row) or metric.row(row))
    monkeypatch.setattr(spelling, "answer_metric", lambda name: counted)
    assert spelling._twins("rouge_l", labels) is None
    assert spelling._twins("rouge_l", [*labels, "Öl", "Ül"]) == ("Öl", "Ül")
    assert len(compared) < 10
    monkeypatch.undo()
    chosen = metric_for("accuracy_first_character", ("Bbb", "Bcc", *map(chr, range(0x4E00, 0x4E00 + 70))))
    assert chosen == ("exact_match_raw", ("Bbb", "Bcc"))


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u200b"])
def test_an_empty_label_is_refused(blank: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the label set has an empty label"):
        task_from_dataset("t", rows("a", "b"), rows("b", word="thing"), labels=["a", "b", blank])
    listed = json.dumps(["1", "2", blank])
    with pytest.raises(DataError, match="the label set has an empty label"):
        opened(tmp_path, f", labels: {listed}", train=csv(rows("1", "2")), test=csv(rows("1", word="thing")))


def test_labels_without_an_order_are_refused(tmp_path: Path) -> None:
    examples = [Example("x", "a"), Example("y", "b")]
    for labels in ({"a", "b"}, frozenset({"a", "b"})):
        with pytest.raises(DataError, match="labels are a set, which has no order"):
            Task(name="t", train=examples, test=examples, labels=labels)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="labels are a set, which has no order"):
            task_from_dataset("t", rows("a", "b"), rows("b", word="thing"), labels=labels)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no order"):
        opened(tmp_path, ", labels: !!set {a, b}", train=csv(rows("a", "b")), test=csv(rows("a", word="thing")))


def test_truth_values_of_numpy_are_pythons() -> None:
    import numpy as np

    rows = [{"text": f"film {k}", "label": bool(k % 2)} for k in range(4)]
    arrays = [{**row, "label": np.bool_(row["label"])} for row in rows]
    plain, numpy = (task_from_dataset("t", found[:2], found[2:]) for found in (rows, arrays))
    assert plain.labels == numpy.labels == ("False", "True")
    assert plain.digest() == numpy.digest()
    assert [type(row.target) for row in numpy.train] == [str, str]


def test_a_label_with_half_a_character_is_refused_in_a_line() -> None:
    rows = [Example("x", "good"), Example("y", "ba\ud83d")]
    with pytest.raises(DataError, match=r"the label 'ba\\ud83d' has half a character"):
        Task(name="films", train=rows, test=rows, labels=("good", "ba\ud83d"))
