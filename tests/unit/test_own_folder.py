"""A user's own folder of tasks, the cards of what is a user's own, and bad input word by word."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from everlora.benchmarks import benchmarks, open_stream
from everlora.benchmarks.cards import SplitSizes, card
from everlora.core.errors import DataError
from everlora.data.stream import hash_of_list

Rows = list[dict[str, Any]]


def rows(split: str, count: int = 4) -> Rows:
    return [{"text": f"{split} text {k}", "label": ("bad", "good")[k % 2]} for k in range(count)]


def lines(some: Rows, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in some).encode()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder(path: Path, *names: str) -> Path:
    for name in names:
        for split in ("train", "test"):
            put(path / name / f"{split}.jsonl", lines(rows(f"{name} {split}")))
    return path


def yaml(path: Path, entry: str) -> Path:
    return put(path / "own.yaml", f"tasks:\n  - {{name: t, {entry}}}\n".encode())


def test_a_folder_of_tasks_is_followed_in_the_order_that_is_given(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine", "b", "a")
    assert open_stream(str(place), tasks=["b", "a"]).names == ("b", "a")
    with pytest.raises(DataError, match=r"in which order .* give --tasks a,b"):
        open_stream(str(place))
    with pytest.raises(DataError, match="has no task 'c'"):
        open_stream(str(place), tasks=["c"])
    assert open_stream(place / "a").names == ("a",)  # a single task has one order
    with pytest.raises(DataError, match="holds no folder with a train file"):
        open_stream(put(tmp_path / "none" / "x.txt", b"").parent)


def test_a_folder_that_is_called_as_a_benchmark_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "trace", "a")
    monkeypatch.chdir(tmp_path)
    assert card("trace").title.startswith("TRACE")
    assert [task.name for task in card("./trace").tasks] == ["a"]


@pytest.mark.parametrize("own", ["yaml", "folder"])
def test_what_is_a_users_own_has_a_card(tmp_path: Path, own: str) -> None:
    place = folder(tmp_path, "t")
    name = yaml(tmp_path, "train: t/train.jsonl, test: t/test.jsonl") if own == "yaml" else place
    found = card(str(name))
    (task,) = found.tasks
    assert task.at_hand is not None
    assert task.at_hand.rows == SplitSizes(train=4, dev=0, test=4)
    assert task.labels == ("bad", "good")
    assert task.at_hand.words is not None
    assert task.at_hand.words.max == 4
    assert (task.metric, task.at_hand.left_out) == ("exact_match", {})
    assert str(place) in task.source
    assert found.order_digest


def test_an_order_is_known_by_its_list_whatever_its_tasks_are_spelt_like(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", lines(rows("train")))
    put(tmp_path / "test.jsonl", lines(rows("test")))
    for names, like in (
        (["Yahoo", "amazon", "AG_news", "DBpedia"], {"standard order 3": 1}),
        (["yahoo", "amazon"], {}),
    ):
        entries = [f"  - {{name: {name}, train: train.jsonl, test: test.jsonl}}\n" for name in names]
        put(tmp_path / "mine.yaml", ("tasks:\n" + "".join(entries)).encode())
        found = card(str(tmp_path / "mine.yaml"))
        assert found.orders == {1: tuple(names)}
        assert found.hashes == {1: hash_of_list(names)}
        assert found.aliases == like


def test_every_benchmark_has_a_whole_card() -> None:
    for info in benchmarks():
        found = card(info.name)
        assert found.hashes == {n: hash_of_list(names) for n, names in info.orders.items()}
        for task in found.tasks:
            assert task.metric, (info.name, task.name)
            assert task.source, (info.name, task.name)
            assert task.licence, (info.name, task.name)
            if info.modality == ("image",):
                assert task.labels or task.classes
            if not info.needs_data:
                assert task.at_hand is not None
                assert task.at_hand.rows.train


BAD = {
    "an empty text": (lines([*rows("train"), {"text": "", "label": "good"}]), "row 5: empty text in column 'text'"),
    "white space": (lines([*rows("train"), {"text": " \t", "label": "good"}]), "row 5: empty text in column 'text'"),
    "an empty label": (lines([*rows("train"), {"text": "x", "label": ""}]), "row 5: empty text in column 'label'"),
    "no label": (lines([*rows("train"), {"text": "x"}]), "row 5: no column 'label'"),
    "latin-1 in the midst": (lines(rows("train")) + '{"text": "café"}\n'.encode("latin-1"), "row 5: not UTF-8"),
    "utf-16": (lines(rows("train")).decode().encode("utf-16"), "row 1: not UTF-8"),
    "a line that is no JSON": (lines(rows("train")) + b"{text: x}\n", "row 5: not sound JSON"),
    "an empty line": (lines(rows("train")) + b"\n" + lines(rows("more", 1)), "row 5: an empty line"),
    "nothing": (b"", "is empty"),
    "a text of test": (lines([*rows("train"), *rows("test", 1)]), "row 5 and .*test.jsonl, row 1; remove one"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_one_line_with_file_and_row(kind: str, tmp_path: Path) -> None:
    data, said = BAD[kind]
    put(tmp_path / "train.jsonl", data)
    put(tmp_path / "test.jsonl", lines(rows("test")))
    with pytest.raises(DataError, match=f"train.jsonl.*{said}") as caught:
        open_stream(yaml(tmp_path, "train: train.jsonl, test: test.jsonl"))
    assert "\n" not in str(caught.value)


def test_a_label_typo_names_its_row_and_what_was_meant(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", lines(rows("train")))
    put(tmp_path / "test.jsonl", lines([*rows("test"), {"text": "x", "label": "godo"}]))
    with pytest.raises(DataError, match=r"test.jsonl, row 5: label 'godo'.*did you mean 'good'"):
        open_stream(yaml(tmp_path, "train: train.jsonl, test: test.jsonl"))


GOOD = {
    "CRLF": lines(rows("train"), "\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + lines(rows("train")),
    "no line feed at the end": lines(rows("train")).rstrip(),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_editors_do_to_files_changes_no_row(kind: str, tmp_path: Path) -> None:
    put(tmp_path / "plain.jsonl", lines(rows("train")))
    put(tmp_path / "train.jsonl", GOOD[kind])
    put(tmp_path / "test.jsonl", lines(rows("test")))
    (task,) = open_stream(yaml(tmp_path, "train: train.jsonl, test: test.jsonl"))
    (plain,) = open_stream(yaml(tmp_path, "train: plain.jsonl, test: test.jsonl"))
    assert task.digest() == plain.digest()


def test_a_line_of_a_megabyte_is_read_whole(tmp_path: Path) -> None:
    long = "word " * 220_000
    put(tmp_path / "train.jsonl", lines([*rows("train"), {"text": long, "label": "good"}]))
    put(tmp_path / "test.jsonl", lines(rows("test")))
    (task,) = open_stream(yaml(tmp_path, "train: train.jsonl, test: test.jsonl"))
    assert len(task.train[-1].input) == len(long)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(lines(rows("train", 50)), mtime=0)[:-12], "is a truncated gzip file"),
        (b"{}", "is not a sound gzip file"),
    ],
)
def test_a_broken_archive_is_told(data: bytes, said: str, tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl.gz", data)
    put(tmp_path / "test.jsonl", lines(rows("test")))
    with pytest.raises(DataError, match=f"train.jsonl.gz {said}"):
        open_stream(yaml(tmp_path, "train: train.jsonl.gz, test: test.jsonl"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("train: train.jsonl", "task 't': give either test or test_fraction"),
        ("train: train.jsonl, test: test.jsonl, lables: [a]", "task 't', 'lables'; did you mean 'labels'"),
        ("train: train.jsonl, test: gone.jsonl", "gone.jsonl does not exist"),
        ("train: train.jsonl, test: test.jsonl, dev: test.jsonl", "dev and test, in every row"),
    ],
)
def test_a_wrong_description_is_told(entry: str, said: str, tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", lines(rows("train")))
    put(tmp_path / "test.jsonl", lines(rows("test")))
    with pytest.raises(DataError, match=said):
        open_stream(yaml(tmp_path, entry))


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_folder_without_a_split_says_which_and_what_it_holds(missing: str, tmp_path: Path) -> None:
    there = {"train": "test", "test": "train"}[missing]
    put(tmp_path / "agnews" / f"{there}.jsonl", lines(rows("x")))
    with pytest.raises(DataError, match=rf"agnews has no {missing} file .*it holds: {there}.jsonl"):
        open_stream("standard", data_dir=tmp_path, tasks=["agnews"])
