"""The streams room: benchmarks by name, a user's own files, rows in memory, and every way they can be wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everlora.benchmarks import benchmarks, find_benchmark, open_stream
from everlora.benchmarks.standard_hub import draw, drawn_task, place_of
from everlora.core.errors import ConfigError, DataError
from everlora.data.files import stream_from_yaml
from everlora.data.stream import TaskStream, left_out_note
from everlora.data.task import Task
from everlora.data.tasks import task_from_dataset

LONG, STANDARD = find_benchmark("long"), find_benchmark("standard")
HUB = {name: place_of(task) for name, task in LONG.defined.items() if task.hub}

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cl_benchmark"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")

TRAIN = [{"text": "good film", "label": "pos"}, {"text": "bad film", "label": "neg"}]
TEST = [{"text": "fine film", "label": "pos"}]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def stream(folder: Path, body: str, **files: Sequence[Mapping[str, Any]]) -> TaskStream:
    for name, rows in files.items():
        jsonl(folder / f"{name}.jsonl", rows)
    path = folder / "mine.yaml"
    path.write_text(body, encoding="utf-8")
    return stream_from_yaml(path)


def two_files(folder: Path, train: bytes | None = None, suffix: str = ".jsonl", extra: str = "") -> Task:
    """A stream of one task whose training file has these bytes."""
    if train is not None:
        (folder / f"train{suffix}").write_bytes(train)
    jsonl(folder / "test.jsonl", TEST)
    body = f"tasks:\n  - {{name: a, train: train{suffix}, test: test.jsonl{extra}}}\n"
    return stream(folder, body).tasks[0]


def refused(message: str, act: Callable[[], object], kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert message in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


# --- the table of the standard benchmarks -----------------------------------------------------------------------


def test_orders_are_permutations_of_known_tasks() -> None:
    assert [len(o) for o in STANDARD.orders.values()] == [4, 4, 4]
    assert [len(o) for o in LONG.orders.values()] == [15, 15, 15]
    for known in (STANDARD, LONG):
        for order in known.orders.values():
            assert sorted(order) == sorted(known.tasks)
            assert set(order) <= set(LONG.defined)
    assert set(LONG.orders[4]) == set(LONG.defined)


@shared
def test_standard_from_the_shared_folder() -> None:
    opened = open_stream("Standard", order=2, data_dir=SHARED, max_train_samples=20, max_eval_samples=10)
    assert opened.names == ("dbpedia", "amazon", "agnews", "yahoo")
    for task in opened:
        assert (len(task.train), len(task.dev), len(task.test)) == (20, 10, 10)
        assert task.labels == tuple(json.loads((SHARED / task.name / "labels.json").read_text()))
        assert task.instruction
    assert len(opened.tasks[0].labels) == 14


@shared
def test_long_from_the_shared_folder_matches_our_table() -> None:
    opened = open_stream("long", order=6, data_dir=SHARED)
    assert opened.names[0] == "yelp"
    assert len(opened) == 15
    assert {task.name: task.labels for task in opened} == {name: s.labels for name, s in LONG.defined.items()}
    assert [task.name for task in opened if not task.instruction] == ["copa"]


@shared
def test_tasks_select_and_reorder() -> None:
    assert open_stream("standard", data_dir=SHARED, tasks=["agnews", "dbpedia"]).names == ("agnews", "dbpedia")
    refused("did you mean 'agnews'", lambda: open_stream("standard", data_dir=SHARED, tasks=["agnew"]))


@shared
def test_parent_of_the_data_folder_is_recognised() -> None:
    refused(f"did you mean {SHARED}?", lambda: open_stream("standard", data_dir=SHARED.parent))


def local(folder: Path, name: str = "agnews", label: str = "World") -> Path:
    for split in ("train", "test"):
        jsonl(folder / name / f"{split}.jsonl", [{"text": f"Text: {split}", "label": label}])
    return folder


def test_local_folder_with_plain_files(tmp_path: Path) -> None:
    task = open_stream("standard", data_dir=local(tmp_path), tasks=["agnews"]).tasks[0]
    assert (len(task.train), len(task.dev), task.labels[0]) == (1, 0, "World")


def test_local_folder_wrong(tmp_path: Path) -> None:
    def agnews() -> TaskStream:
        return open_stream("standard", data_dir=tmp_path, tasks=["agnews"])

    refused("does not exist", lambda: open_stream("standard", data_dir=tmp_path / "none"))
    refused("has no folder 'agnews'; wanted <data_dir>/<task>/train.jsonl.gz", agnews)
    local(tmp_path, label="Wolrd")
    refused("train.jsonl, row 1: label 'Wolrd' is outside the label set", agnews)
    (tmp_path / "agnews" / "labels.json").write_text('["Wolrd"]')
    assert agnews().tasks[0].labels == ("Wolrd",)
    (tmp_path / "agnews" / "labels.json").write_text('{"World": 0}')
    refused("labels.json must hold a list of label names", agnews)
    (tmp_path / "agnews" / "test.jsonl").unlink()
    refused("has no test file (test.json, .jsonl, .csv, ...); it holds: labels.json, train.jsonl", agnews)


# --- the hub ----------------------------------------------------------------------------------------------------

OFFLINE = """
import json, sys, pathlib
from everlora.core.errors import DataError
from everlora.benchmarks import open_stream
from everlora.data.files import stream_from_yaml
from everlora.data.hub import load_table
for act in (lambda: open_stream("standard"), lambda: stream_from_yaml(pathlib.Path(sys.argv[1]))):
    try: act()
    except DataError as error: print(error)
print(load_table(sys.argv[2], None, "train", instead="-").rows[0]["text"])
"""


def test_hub_unreachable_is_one_clear_line(tmp_path: Path) -> None:
    yaml = tmp_path / "hub.yaml"
    yaml.write_text("tasks: [{name: a, train: owner/data, test: owner/data}]")
    jsonl(tmp_path / "local" / "train.jsonl", TRAIN)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(yaml), str(tmp_path / "local")],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    benchmark, own, row = done.stdout.splitlines()
    assert benchmark.startswith("cannot load fancyzhx/dbpedia_14 (train) from the hub: the hub cannot be reached")
    assert "give --data-dir a folder" in benchmark
    assert "cannot load owner/data (train)" in own
    assert "point" in own
    assert row == "good film"


def test_task_without_a_place_on_the_hub() -> None:
    refused("the task 'copa' has no source on the hub", lambda: open_stream("long", tasks=["copa"]))


def test_every_standard_task_has_a_place_on_the_hub() -> None:
    assert set(STANDARD.tasks) <= set(HUB)
    for name, place in HUB.items():
        assert sorted(place.names) == sorted(LONG.defined[name].labels)


@pytest.mark.parametrize("name", sorted(HUB))
def test_hub_rows_take_the_local_form(name: str) -> None:
    datasets = pytest.importorskip("datasets")
    place, labels = HUB[name], LONG.defined[name].labels
    columns = dict.fromkeys([place.label_column, *(column for _, column in place.fields)])

    def rows(split: str) -> Any:
        values = [
            {c: f"{c} {split} {n}" for c in columns} | {place.label_column: place.first + n % len(labels)}
            for n in range(40 * len(labels))
        ]
        return datasets.Dataset.from_list(values)

    task = drawn_task(LONG.defined[name], rows("train"), rows("test"))
    assert (len(task.train), len(task.dev), len(task.test)) == tuple(n * len(labels) for n in (36, 4, 40))
    assert not task.left_out
    assert {e.target for e in task.train} == set(labels)
    first = "\n".join(f"{line}: {c} train" if line else f"{c} train" for line, c in place.fields[:1])
    assert task.train[0].input.startswith(first)
    if SHARED.is_dir() and name != "agnews":  # the hub's AG News has no title of its own
        with gzip.open(SHARED / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
            texts = [json.loads(next(file))["text"] for _ in range(20)]
        cues = [f"{line}: " for line, _ in place.fields if line]
        assert any(all(cue in text for cue in cues) for text in texts)


def test_yahoo_without_details_is_a_question_and_an_answer() -> None:
    row = {"question_title": "why", "question_content": " ", "best_answer": "so"}
    assert HUB["yahoo"].text(row) == "Question: why\nAnswer: so"
    assert HUB["yahoo"].text(row | {"question_content": "x"}) == "Title: why\nQuestion: x\nAnswer: so"


def test_draw_is_balanced_fixed_and_disjoint() -> None:
    numbers = [n % 3 for n in range(90)]
    chosen, others = draw(numbers, 10, 2)
    assert draw(numbers, 10, 2) == (chosen, others)
    assert [sum(numbers[i] == k for i in chosen) for k in range(3)] == [10, 10, 10]
    assert not set(chosen) & set(others)
    assert len(others) == 6


def test_hub_rows_that_leak_are_left_out_and_counted() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(40)]
    train, test = datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows[:1])
    task = drawn_task(LONG.defined["imdb"], train, test)
    note = left_out_note([task])
    assert len(task.train) + len(task.dev) == 39
    assert "1 " in note
    assert "left out because test has the same text" in note


def test_hub_with_other_columns() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"content": "x", "label": 0}])
    refused("has no column 'text' (found: content, label)", lambda: drawn_task(LONG.defined["imdb"], data, data))


# --- a user's own files -----------------------------------------------------------------------------------------

BODY = "name: mine\ntasks:\n  - {name: a, train: train.jsonl, test: test.jsonl}\n"


def test_own_stream(tmp_path: Path) -> None:
    body = """
name: desk
note: from the archive
tasks:
  - name: tickets
    train: train.jsonl
    test: test.jsonl
    validation: dev.jsonl
    labels: [neg, pos]
    instruction: Judge it.
  - name: replies
    train: replies.jsonl
    test_fraction: 0.25
"""
    replies = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(8)]
    dev = [{"text": "poor film", "label": "neg"}]
    opened = stream(tmp_path, body, train=TRAIN, test=TEST, dev=dev, replies=replies)
    tickets, answers = opened.tasks
    assert (opened.name, opened.note, opened.names) == ("desk", "from the archive", ("tickets", "replies"))
    assert (tickets.labels, tickets.form, tickets.instruction) == (("neg", "pos"), "labelled", "Judge it.")
    assert tickets.dev[0].input == "poor film"
    assert (answers.form, answers.labels, len(answers.train), len(answers.test)) == ("prompted", (), 6, 2)
    path = tmp_path / "mine.yaml"
    few = open_stream(path, tasks=["replies"], max_train_samples=3).tasks[0]
    assert few.take(99).train == few.train
    assert len(few.train) == 3
    assert set(few.train) < set(answers.train)
    refused("has no task 'ticket'; did you mean 'tickets'?", lambda: open_stream(str(path), tasks=["ticket"]))
    refused("has a single order", lambda: open_stream(path, order=2), ConfigError)
    refused("takes no data folder", lambda: open_stream(path, data_dir=tmp_path), ConfigError)


def test_labels_come_from_train_in_order_of_appearance(tmp_path: Path) -> None:
    assert stream(tmp_path, BODY, train=TRAIN, test=TEST).tasks[0].labels == ("pos", "neg")


def test_whole_number_labels_index_the_list(tmp_path: Path) -> None:
    body = BODY.replace("test.jsonl}", "test.jsonl, labels: [neg, pos]}")
    train = [{"text": "x", "label": 1}, {"text": "y", "label": 0}]
    task = stream(tmp_path, body, train=train, test=[{"text": "z", "label": "1"}]).tasks[0]
    assert [e.target for e in (*task.train, *task.test)] == ["pos", "neg", "pos"]
    train[1]["label"] = 2
    refused(
        "train.jsonl, row 2: label 2 is outside the label set",
        lambda: stream(tmp_path, body, train=train, test=TEST),
    )


def test_renamed_columns(tmp_path: Path) -> None:
    body = BODY.replace("test.jsonl}", "test.jsonl, text_column: body, label_column: desk}")
    rows = [{"body": "x", "desk": "A", "label": "?"}, {"body": "y", "desk": "B", "label": "?"}]
    task = stream(tmp_path, body, train=rows, test=[{"body": "z", "desk": "B"}]).tasks[0]
    assert task.labels == ("A", "B")
    refused(
        "train.jsonl, row 1: no column 'body' (found: text, label)",
        lambda: stream(tmp_path, body, train=TRAIN, test=TEST),
    )


def test_chat_and_trace_rows(tmp_path: Path) -> None:
    def chat(question: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]}

    body = BODY + "  - {name: t, train: tt.jsonl, test: te.jsonl}\n"
    trace = {"tt": [{"prompt": "p", "answer": "a"}], "te": [{"prompt": "p", "answer": "b"}]}
    chats, answers = stream(tmp_path, body, train=[chat("x")], test=[chat("y")], **trace).tasks
    assert (chats.form, chats.train[0].target) == ("chat", "yes")
    assert chats.train[0].input == [{"role": "user", "content": "x"}]
    assert (answers.form, answers.test[0].target) == ("prompted", "b")  # one prompt, two answers: no leak
    wrong = chat("x")["messages"][::-1]
    refused(
        "train.jsonl, row 1: the last of at least two messages must be the assistant's",
        lambda: stream(tmp_path, BODY, train=[{"messages": wrong}], test=[chat("y")]),
    )
    refused(
        "row 1: message 1 must have a 'content' of type text",
        lambda: stream(tmp_path, BODY, train=[{"messages": [{"role": "user"}]}], test=[chat("y")]),
    )
    refused("must be a list", lambda: stream(tmp_path, BODY, train=[{"messages": "hi"}], test=[chat("y")]))


@pytest.mark.parametrize("kind", ["json", "json lines", "csv", "tsv", "jsonl.gz", "parquet"])
def test_kinds_of_file(tmp_path: Path, kind: str) -> None:
    rows = [{"text": "good, \u2028 film", "label": "pos"}, {"text": "two\nlines", "label": "neg"}]
    suffix = "." + kind.split()[0]
    path = tmp_path / f"train{suffix}"
    if kind == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pytest.importorskip("datasets").Dataset.from_list(rows).to_parquet(str(path))
    else:
        jsonl(path, rows)
    task = two_files(tmp_path, suffix=suffix)
    assert [(e.input, e.target) for e in task.train] == [(r["text"], r["label"]) for r in rows]


def test_class_labels_of_parquet_have_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    data = datasets.Dataset.from_list([{"text": "x", "label": 1}], features=features)
    data.to_parquet(str(tmp_path / "train.parquet"))
    task = two_files(tmp_path, suffix=".parquet")
    assert (task.labels, task.train[0].target) == (("neg", "pos"), "pos")
    # A list in another order renames nothing: the numbers keep the meaning that the file gives them.
    assert two_files(tmp_path, suffix=".parquet", extra=", labels: [pos, neg]").train[0].target == "pos"


def test_bom_and_crlf(tmp_path: Path) -> None:
    line = b'{"text": "x", "label": "pos"}\r\n'
    assert two_files(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n").train[0].target == "pos"
    assert two_files(tmp_path, b"\xef\xbb\xbftext,label\r\nx,pos\r\n\r\n", ".csv").train[0].input == "x"
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + BODY.replace("\n", "\r\n").encode())
    jsonl(tmp_path / "train.jsonl", TRAIN)
    assert stream_from_yaml(tmp_path / "mine.yaml").name == "mine"


GOOD = b'{"text": "x", "label": "pos"}\n'


@pytest.mark.parametrize(
    ("train", "suffix", "message"),
    [
        (None, ".jsonl", "train.jsonl does not exist"),
        (b"", ".jsonl", "train.jsonl is empty"),
        (b"\xef\xbb\xbf \r\n", ".jsonl", "train.jsonl is empty"),
        (b"[]", ".json", "train.json holds no rows"),
        (b"text,label\n", ".csv", "train.csv holds no rows"),
        (GOOD + b'{"text": ', ".jsonl", "train.jsonl, row 2: not sound JSON (Expecting value at column"),
        (GOOD + b'{"text": "\\ud83d", "label": "pos"}\n', ".jsonl", "train.jsonl, row 2: column 'text' holds half a"),
        (b"9" * 5000, ".jsonl", "train.jsonl, row 1: not sound JSON"),
        (GOOD + b"[1]\n", ".jsonl", "train.jsonl, row 2: not a JSON object but list"),
        (b"[1]", ".json", "train.json, row 1: not a JSON object but int"),
        (b"[{]", ".json", "train.json, row 1: not sound JSON"),
        (GOOD + b"\n" + GOOD, ".jsonl", "train.jsonl, row 2: an empty line between rows"),
        (GOOD + b'{"text": "\xff", "label": "pos"}\n', ".jsonl", "train.jsonl, row 2: not UTF-8"),
        (b"text,label\nx,pos\n\xe9,neg\n", ".csv", "train.csv, line 3: not UTF-8"),
        (GOOD + b'{"text": "y"}\n', ".jsonl", "train.jsonl, row 2: no column 'label' (found: text)"),
        (b'{"txt": "y", "label": "a"}\n', ".jsonl", "no usable columns (found: txt, label); wanted one of"),
        (b'{"text": "y", "label": "a", "prompt": "p", "answer": "a"}', ".jsonl", "can be read in several ways"),
        (GOOD + b'{"text": " ", "label": "pos"}\n', ".jsonl", "train.jsonl, row 2: empty text in column 'text'"),
        (GOOD + b'{"text": "y", "label": ""}\n', ".jsonl", "train.jsonl, row 2: empty text in column 'label'"),
        (GOOD + b'{"text": 5, "label": "pos"}\n', ".jsonl", "row 2: column 'text' must hold text, found int"),
        (GOOD + b'{"text": "y", "label": 0.5}\n', ".jsonl", "row 2: a label must be text or a whole number"),
        (b"text,label\nx,pos\ny\n", ".csv", "train.csv, row 3: 1 fields where the header has 2"),
        (b'text,label\nx,"pos"y\n', ".csv", "train.csv, line 2: not sound CSV"),
        (b"text,text\nx,y\n", ".csv", "two columns are called 'text'"),
        (b"PAR1", ".parquet", "train.parquet is not a sound Parquet file"),
        (GOOD, ".txt", "cannot tell the kind of file"),
        (gzip.compress(GOOD, mtime=0)[:-9], ".jsonl.gz", "train.jsonl.gz is a truncated gzip file"),
        (GOOD, ".jsonl.gz", "train.jsonl.gz is not a sound gzip file"),
    ],
)
def test_bad_file(tmp_path: Path, train: bytes | None, suffix: str, message: str) -> None:
    refused(message, lambda: two_files(tmp_path, train, suffix))


def test_label_outside_the_set(tmp_path: Path) -> None:
    test = [{"text": "z", "label": "pso"}]
    refused(
        "test.jsonl, row 1: label 'pso' is outside the label set; did you mean 'pos'?",
        lambda: stream(tmp_path, BODY, train=TRAIN, test=test),
    )


def test_same_text_in_two_splits(tmp_path: Path) -> None:
    train = [*TRAIN, {"text": " Fine\tFILM ", "label": "neg"}]
    with pytest.raises(DataError) as caught:
        stream(tmp_path, BODY, train=train, test=TEST)
    assert f"in train and test: {tmp_path / 'train.jsonl'}, row 3 and {tmp_path / 'test.jsonl'}, row 1" in str(
        caught.value
    )
    body = BODY.replace("test.jsonl}", "test.jsonl, overlap: drop}")
    kept = stream(tmp_path, body, train=train, test=TEST)
    assert len(kept.tasks[0].train) == 2
    assert kept.note == "a: 1 train rows left out because test has the same text."
    body = BODY.replace("test.jsonl}", "test.jsonl, dev: test.jsonl}")
    refused("in dev and test", lambda: stream(tmp_path, body, train=TRAIN, test=TEST))


def test_fraction_keeps_twins_together(tmp_path: Path) -> None:
    rows = [{"text": f"t{n % 5}", "label": "pos"} for n in range(20)]
    body = "tasks:\n  - {name: a, train: train.jsonl, test_fraction: 0.4}\n"
    task = stream(tmp_path, body, train=rows).tasks[0]
    assert (len(task.train), len(task.test)) == (12, 8)
    assert not {e.input for e in task.train} & {e.input for e in task.test}
    refused("too few different rows", lambda: stream(tmp_path, body, train=rows[:1]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("tasks: [{name: a, trian: x, test: y}]", "unknown key in task 'a', 'trian'; did you mean 'train'?"),
        ("task: []", "unknown key in 'task'; did you mean 'tasks'?"),
        ("tasks: [{name: a, train: {hub: o/d, spilt: x}, test: y}]", "did you mean 'split'?"),
        ("tasks: []", "'tasks': list should have at least 1 item"),
        ("tasks: [{train: x, test: y}]", "task 1, 'name': field required"),
        ("tasks: [{name: a, train: x}]", "task 'a': give either test or test_fraction"),
        ("tasks: [{name: a, train: x, test_fraction: 2}]", "task 'a', 'test_fraction': input should be less than 1"),
        ("tasks: [{name: a, train: x, test: y, labels: [yes, no]}]", "YAML reads True as bool; put it in quotes"),
        ("tasks: [{name: 7, train: x, test: y}]", "YAML reads 7 as int; put it in quotes"),
        ("tasks: [{name: a, train: x, test: y, dev: v, validation: v}]", "'validation'"),
        ("tasks: [{name: a, name: b, train: x, test: y}]", "the key 'name' stands twice"),
        ("tasks: [{name: a, train: x, test: y}, {name: a, train: z, test: w}]", "names the task 'a' twice"),
        ("tasks:\n  - {name: a", "line 2: not sound YAML"),
        ("- a", "wanted a mapping with the key 'tasks', found list"),
        ("", "wanted a mapping with the key 'tasks', found NoneType"),
        ("tasks: [{name: a, train: x, test: y}]", "cannot tell the kind of file"),
        ("tasks: [{name: a, train: sub/x.jsonl, test: y}]", "x.jsonl does not exist"),
    ],
)
def test_bad_yaml(tmp_path: Path, body: str, message: str) -> None:
    refused(message, lambda: stream(tmp_path, body))
    refused("mine.yaml" if "exist" not in message and "kind" not in message else "x", lambda: stream(tmp_path, body))


def test_missing_yaml(tmp_path: Path) -> None:
    refused("none.yml does not exist", lambda: open_stream(tmp_path / "none.yml"))


# --- rows in memory ---------------------------------------------------------------------------------------------


def test_task_from_rows() -> None:
    task = task_from_dataset("a", TRAIN, iter(TEST), instruction="Judge it.")
    assert (task.labels, task.instruction, len(task.dev)) == (("pos", "neg"), "Judge it.", 0)
    assert not task_from_dataset("a", TRAIN, TEST, dev=[]).dev
    refused("a train is empty", lambda: task_from_dataset("a", [], TEST))
    refused("empty test split", lambda: task_from_dataset("a", TRAIN, []))
    refused("a test, row 1: not a mapping", lambda: task_from_dataset("a", TRAIN, "ab"))  # type: ignore[arg-type]
    refused("a train, row 1: label 'pos' is outside", lambda: task_from_dataset("a", TRAIN, TEST, labels=["x", "y"]))
    refused("must consist of letters", lambda: task_from_dataset("a b", TRAIN, TEST))


def test_task_from_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    train = datasets.Dataset.from_list([{"text": "x", "label": 1}], features=features)
    test = datasets.Dataset.from_list([{"text": "y", "label": 0}], features=features)
    task = task_from_dataset("a", train, test)
    assert (task.labels, task.train[0].target, task.test[0].target) == (("neg", "pos"), "pos", "neg")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "name": "bot"}]
    chats = datasets.Dataset.from_list([{"messages": messages}])
    other = [{"messages": [{"role": "user", "content": "r"}, messages[1]]}]
    assert task_from_dataset("c", chats, other).train[0].input == [{"role": "user", "content": "q"}]


def test_images_in_memory() -> None:
    image = pytest.importorskip("PIL.Image")
    grey, red = np.full((4, 5), 7, dtype=np.uint8), image.new("RGB", (5, 4), "red")
    train = [{"image": grey, "label": "a"}, {"image": red, "label": "b"}, {"image": red.convert("1"), "label": "b"}]
    task = task_from_dataset("i", train, [{"image": [[0, 255]], "label": "a"}])
    assert task.form == "image"
    assert [e.input.shape for e in (*task.train, *task.test)] == [(4, 5), (4, 5, 3), (4, 5, 3), (1, 2)]
    assert {e.input.dtype for e in task.train} == {np.dtype(np.uint8)}
    assert task.digest() == task_from_dataset("i", train, [{"image": [[0, 255]], "label": "a"}]).digest()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2)), "must hold whole numbers 0..255, found float64"),
        (np.full((2, 2), 300), "must hold whole numbers 0..255"),
        (np.zeros((2, 2, 4), np.uint8), "found shape (2, 2, 4)"),
        ([[1, 2], [3]], "differ in length"),
        (5, "must hold a PIL image or an array, found int"),
        (b"no picture", "the image cannot be read"),
        ("none.png", "the image cannot be read"),
    ],
)
def test_bad_image(value: Any, message: str) -> None:
    rows = [{"image": value, "label": "a"}]
    refused(message, lambda: task_from_dataset("i", rows, rows))


def test_image_files_beside_the_rows(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("L", (3, 2), 9).save(tmp_path / "x.png")
    rows = [{"image": "x.png", "label": "a"}]
    assert stream(tmp_path, BODY, train=rows, test=rows).tasks[0].train[0].input.tolist() == [[9] * 3] * 2


# --- the registry -----------------------------------------------------------------------------------------------


def test_benchmarks_are_listed() -> None:
    listed = {info.name: info for info in benchmarks()}
    assert list(listed)[:5] == ["builtin", "standard", "long", "trace", "superni"]
    assert list(listed["standard"].orders) == [1, 2, 3]
    assert listed["long"].tasks == LONG.orders[4]
    assert not listed["builtin"].needs_data


def test_builtin_by_any_spelling() -> None:
    name = benchmarks()[0].tasks[0]
    opened = open_stream("Built-In", tasks=[name], max_train_samples=5, max_eval_samples=3)
    assert opened.names == (name,)
    assert [len(s) for s in (opened.tasks[0].train, opened.tasks[0].dev, opened.tasks[0].test)] == [5, 3, 3]
    pictures = open_stream("builtin", modality="image", max_train_samples=4, max_eval_samples=2)
    assert {task.form for task in pictures} == {"image"}
    refused("did you mean", lambda: open_stream("builtin", tasks=[name[:-1]]))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"name": "standrad"}, "unknown benchmark 'standrad'; did you mean 'standard'?"),
        ({"name": "standard", "order": 4}, "standard has no order 4; orders: 1, 2, 3 (4 is of 'long')"),
        ({"name": "long", "order": 9}, "long has no order 9; orders: 4, 5, 6"),
        ({"name": "builtin", "order": 1}, "builtin has a single order"),
        ({"name": "standard", "modality": "image"}, "standard has no image tasks; it offers: text"),
        ({"name": "builtin", "tasks": []}, "tasks is an empty list"),
        ({"name": "builtin", "tasks": "news"}, "tasks must be a list of names"),
        ({"name": "builtin", "max_train_samples": 0}, "max_train_samples must be at least 1, found 0"),
    ],
)
def test_bad_wish(wish: dict[str, Any], message: str) -> None:
    refused(message, lambda: open_stream(**wish), ConfigError)
