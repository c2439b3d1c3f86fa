"""Files as they come off real disks: each fault is one line with file and row, and nothing is lost without a word."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from everlora.benchmarks import open_stream
from everlora.core.errors import ConfigError, DataError
from everlora.data.task import Task
from everlora.data.tasks import task_from_dataset

ROWS = [{"text": f"text {number}", "label": ("good", "bad")[number % 2]} for number in range(4)]
TEST = [{"text": "another", "label": "good"}]
LISTED, PRETTY = json.dumps(ROWS), json.dumps(ROWS, indent=2)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def opened(folder: Path, train: bytes | str, name: str = "train.jsonl", more: str = "") -> Task:
    """The task of a YAML file whose training rows are these bytes."""
    (folder / name).write_bytes(train.encode() if isinstance(train, str) else train)
    (folder / "test.jsonl").write_bytes(lines(TEST))
    (folder / "mine.yaml").write_text(f"tasks:\n  - {{name: t, train: {name}, test: test.jsonl{more}}}\n")
    (task,) = open_stream(folder / "mine.yaml")
    return task


@pytest.mark.parametrize(
    ("name", "train", "said"),
    [
        ("train.json", LISTED.replace('"label": "bad"}', '"label" "bad"}', 1), "row 2: not sound JSON"),
        ("train.json", PRETTY.replace('"text 2"', "text 2"), "row 3: not sound JSON .*at line 11, column 13"),
        ("train.json", LISTED[:-30], "row 4: not sound JSON"),
        ("train.json", LISTED.encode().replace(b"text 2", b"caf\xe9"), "row 3: not UTF-8 .*byte"),
        ("train.json", LISTED.replace('"text 2"', '"x", "text": "y"'), "row 3: .*the key 'text' stands twice"),
        ("train.jsonl", lines(ROWS) + b'{"text": "x", "text": "y", "label": "bad"}', "row 5: .*'text' stands twice"),
        ("train.json", json.dumps({"data": ROWS}, indent=1), "one JSON object over several lines"),
        ("train.csv", "text;label\nx;good\n", "row 1: one column, 'text;label'; separate by ',' and not by ';'"),
        ("train.csv", b'text,label\n"a\nb",good\n' + b"\xe9,bad\n", "line 4: not UTF-8"),
    ],
)
def test_the_row_that_is_broken_is_named(name: str, train: bytes | str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}, {said}" if "several" not in said else rf"{name}: {said}"):
        opened(tmp_path, train, name)


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("list.jsonl", LISTED.encode()),
        ("pretty.jsonl", PRETTY.replace("\n", "\r\n").encode()),
        ("packed.jsonl", gzip.compress(lines(ROWS), mtime=0)),
        ("marked.json", b"\xef\xbb\xbf" + PRETTY.encode()),
    ],
)
def test_what_a_file_is_its_content_says(name: str, train: bytes, tmp_path: Path) -> None:
    assert opened(tmp_path, train, name).digest() == opened(tmp_path, lines(ROWS)).digest()


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([{"text": "x", "label": "Good "}], "", r"row 5: label 'Good ' \(1 of the rows\) looks like a slip of 'good'"),
        ([{"text": "x", "label": "good"}], ", labels: [good, bad, good]", "'good' stands twice"),
        ([{"text": "x", "label": "good"}], ", labels: [good, bad, Bad.]", "'Bad.' and 'bad' are one label"),
        ([{"text": None, "label": "good"}], "", r"row 5: column 'text' must hold text, found nothing \(null\)"),
        ([{"text": "x", "label": float("nan")}], "", "row 5: a label must be text or a whole number, found NaN"),
    ],
)
def test_labels_are_a_set_and_cells_are_filled(rows: list[Any], more: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        opened(tmp_path, lines([*ROWS, *rows]), more=more)


def test_a_typo_among_many_is_told_where_no_label_set_is_named(tmp_path: Path) -> None:
    many = [{"text": f"text {number}", "label": ("positive", "negative")[number % 2]} for number in range(20)]
    test = ", labels: [positive, negative, postive, good]"
    with pytest.raises(DataError, match=r"row 21: label 'postive' \(1 of the rows\) looks like a slip of 'positive'"):
        opened(tmp_path, lines([*many, {"text": "x", "label": "postive"}]))
    assert len(opened(tmp_path, lines([*many, {"text": "x", "label": "postive"}]), more=test).train) == 21


def test_labels_that_differ_for_a_raw_metric_are_two(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": "c"}, {"text": "y", "label": "(c)"}]
    more = ", labels: [c, (c), good]"
    found = opened(tmp_path, lines(rows), more=more)
    assert found.metric == "exact_match_raw"
    assert found.notes == ("scored by exact_match_raw: to exact_match the labels 'c' and '(c)' are one answer",)
    assert opened(tmp_path, lines(rows), more=f"{more}, metric: exact_match_raw").labels == ("c", "(c)", "good")


def folder(path: Path, **files: bytes) -> Path:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name.replace("_", ".")).write_bytes(data)
    return path.parent


def test_a_task_of_a_folder_that_lacks_a_split_is_not_skipped(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine" / "a", train_jsonl=lines(ROWS), test_jsonl=lines(TEST))
    assert open_stream(place).names == ("a",)
    folder(tmp_path / "mine" / "b", test_jsonl=lines(TEST))
    with pytest.raises(DataError, match="b has a test file and no train file"):
        open_stream(place)


@pytest.mark.parametrize("name", ["trian_jsonl", "tset_csv", "devv_json"])
def test_a_misspelt_split_is_not_left_out_silently(name: str, tmp_path: Path) -> None:
    files = {
        "train_jsonl": lines(ROWS),
        "test_jsonl": lines(TEST),
        "notes_json": b"{}",
        "labels_json": b'["good","bad"]',
    }
    place = folder(tmp_path / "mine" / "a", **files)
    assert open_stream(place).names == ("a",)
    (tmp_path / "mine" / "a" / name.replace("_", ".")).write_bytes(lines(TEST))
    with pytest.raises(DataError, match=rf"{name.replace('_', '.')} is no split's file; did you mean '"):
        open_stream(place)


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    place = folder(
        tmp_path / "mine" / "a", train_jsonl=lines(ROWS), train_json=lines(ROWS[:1]), test_jsonl=lines(TEST)
    )
    with pytest.raises(DataError, match=r"has train.jsonl and train.json for one split"):
        open_stream(place)


def test_a_folder_of_tables_is_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine" / "a", train_csv=b"text,label\nx,good\n", test_csv=b"text,label\ny,good\n")
    (task,) = open_stream(place)
    assert (len(task.train), task.labels) == (1, ("good",))


ALPACA = [{"instruction": f"Do {number}.", "input": "this", "output": "done"} for number in range(3)]


def test_instructions_are_kept_wherever_alpaca_rows_come_from(tmp_path: Path) -> None:
    """``input`` and ``output`` alone are a dialect, too, which would lose the instruction."""
    asked = ALPACA[0]["instruction"] + "\nthis"
    place = folder(tmp_path / "mine" / "a", train_json=json.dumps(ALPACA[:2]).encode(), test_jsonl=lines(ALPACA[2:]))
    assert open_stream(place).tasks[0].train[0].input == asked
    assert task_from_dataset("a", ALPACA[:2], ALPACA[2:]).train[0].input == asked
    whole = [
        {**row, "text": "Instruction: {instruction} Input: {input} Response: {output}".format(**row)} for row in ALPACA
    ]
    assert task_from_dataset("a", whole[:2], whole[2:]).train[0].input == asked


def test_a_message_names_the_column_of_the_file(tmp_path: Path) -> None:
    bad = [*ALPACA[:2], {"instruction": "Do.", "output": ""}]
    place = folder(tmp_path / "mine" / "a", train_jsonl=lines(bad), test_jsonl=lines(ALPACA[2:]))
    with pytest.raises(DataError, match=r"train.jsonl, row 3: empty text in column 'output'"):
        open_stream(place)
    rows = [{"sentence": "x", "label": "a"}, {"sentence": " ", "label": "a"}]
    place = folder(tmp_path / "theirs" / "a", train_json=lines(rows), test_json=lines(rows[:1]))
    with pytest.raises(DataError, match=r"train.json, row 2: empty text in column 'sentence'"):
        open_stream(place)


def test_nobody_agreed_on_a_dash(tmp_path: Path) -> None:
    """Such labels are left out of O-LoRA's rows also where no labels.json lies beside them."""
    rows = [{"sentence": "x", "label": "a"}, {"sentence": "y", "label": "-"}]
    place = folder(tmp_path / "mine" / "a", train_json=lines(rows), test_json=lines([{"sentence": "z", "label": "a"}]))
    (task,) = open_stream(place)
    assert task.labels == ("a",)
    assert task.left_out == {"train: the label is '-'": 1}


def test_nothing_left_to_learn_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every row of .*train.jsonl stands in .*test.jsonl too"):
        opened(tmp_path, lines(TEST), more=", overlap: drop")


def described(folder: Path, info: dict[str, Any], orders: dict[str, Any] | None = None) -> None:
    (folder / "train.json").write_text(json.dumps(ALPACA[:2]))
    (folder / "test.json").write_text(json.dumps(ALPACA[2:]))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "benchmark_info.json").write_text(json.dumps(orders or {"B": {"orders": {"one": ["q"]}}}))
    (folder / "mine.yaml").write_text("source: {path: .}\n")
    open_stream(folder / "mine.yaml")


Q: dict[str, Any] = {"q": {"file_name": "train.json"}, "q_test": {"file_name": "test.json"}}


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (
            {**Q, "q": {"file_name": "train.json", "file_sha1": "0" * 40}},
            "train.json has another SHA-1 than file_sha1",
        ),
        ({**Q, "q_train": Q["q_test"]}, "has 'q_train' and 'q' for one split"),
        ({**Q, "q": {"file_name": "train.json", "num_samples": 0}}, "'num_samples' input should be greater"),
    ],
)
def test_a_description_is_taken_at_its_word(info: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        described(tmp_path, info)
    sha = hashlib.sha1((tmp_path / "train.json").read_bytes(), usedforsecurity=False).hexdigest()
    described(tmp_path, {**Q, "q": {"file_name": "train.json", "file_sha1": sha}})


def test_easycl_says_what_the_labels_are(tmp_path: Path) -> None:
    described(tmp_path, Q)
    options = tmp_path / "dataset_options.json"
    options.write_text(json.dumps({"q": {"options": ["done", "not done"], "description": "."}}))
    assert open_stream(tmp_path / "mine.yaml").tasks[0].labels == ("done", "not done")
    (tmp_path / "train.json").write_text(json.dumps([*ALPACA[:2], {"instruction": "Do.", "output": "dnoe"}]))
    with pytest.raises(
        DataError, match=r"train.json, row 3: label 'dnoe' is outside the label set; did you mean 'don"
    ):
        open_stream(tmp_path / "mine.yaml")
    (tmp_path / "train.json").write_text(json.dumps([*ALPACA[:2], {"instruction": "Do.", "output": "-"}]))
    assert open_stream(tmp_path / "mine.yaml").tasks[0].left_out == {"train: the label is '-'": 1}
    options.write_text(json.dumps({"q": {"option": ["done"]}}))
    with pytest.raises(DataError, match=r"dataset_options\.json must hold"):
        open_stream(tmp_path / "mine.yaml")


def test_a_description_without_orders_says_what_to_do(tmp_path: Path) -> None:
    described(tmp_path, Q)
    (tmp_path / "benchmark_info.json").unlink()
    with pytest.raises(DataError, match=r"has no benchmark_info.json to say an order; list its data sets under tasks"):
        open_stream(tmp_path / "mine.yaml")


def test_two_orders_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has two orders 'one'"):
        described(tmp_path, Q, {"B": {"orders": {"one": ["q"]}}, "C": {"orders": {"one": ["r"]}}})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("tasks:\n  - {name: a, source: {knd: trace, path: x}}\n", "did you mean 'kind'"),
        ("source: {path: x, confg: y}\n", "did you mean 'config'"),
        ("source: {kind: trase, path: x}\n", "mine.yaml: 'source.kind': input should be 'o-lora', 'superni'"),
    ],
)
def test_wrong_keys_of_a_source(body: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(body)
    with pytest.raises(DataError, match=said):
        open_stream(tmp_path / "mine.yaml")


def test_a_path_that_is_no_stream_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine.csv is one file of rows; a stream of your own is a YAML file"):
        open_stream(str(tmp_path / "mine.csv"))
    with pytest.raises(ConfigError, match="gone does not exist"):
        open_stream(str(tmp_path / "gone"))
    with pytest.raises(DataError, match="columns are Text, Label; spell them text and label"):
        opened(tmp_path, "Text,Label\nx,good\n", "train.csv")


def chat(role: str, content: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}, {"role": "assistant", "content": "y"}]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (chat("usr", "x"), "row 1: message 1 has the role 'usr'; did you mean 'user'"),
        (chat("user", " "), "row 1: message 1: empty text in column 'content'"),
        ({"prompt": "x", "completion": "y", "system": "Be brief."}, "row 1: column 'system' would change the prompt"),
        (
            {"text": "x", "label": "y", "instruction": "Be brief."},
            "row 1: column 'instruction' would change the prompt",
        ),
    ],
)
def test_nothing_of_a_prompt_is_lost_silently(row: dict[str, Any], said: str) -> None:
    other = {key: value if key in ("completion", "label") else "other" for key, value in row.items()}
    with pytest.raises(DataError, match=said):
        task_from_dataset("t", [row], [other])
    kept = {key: value for key, value in row.items() if key not in ("system", "instruction")}
    if "messages" not in row:
        assert task_from_dataset("t", [{**kept, "system": None}], [{**other, "system": "", "instruction": ""}]).train
