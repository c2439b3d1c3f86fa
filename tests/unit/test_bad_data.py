"""Files as they come off real disks: each fault is one line with file and row, and nothing is lost without a word."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from everlora.core.errors import DataError
from everlora.core.task import Task
from everlora.streams import open_stream

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
        ("train.csv", 'text,label\n"a\nb",good\n'.encode() + b"\xe9,bad\n", "line 4: not UTF-8"),
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
        ("packed.jsonl", gzip.compress(lines(ROWS))),
        ("marked.json", b"\xef\xbb\xbf" + PRETTY.encode()),
    ],
)
def test_what_a_file_is_its_content_says(name: str, train: bytes, tmp_path: Path) -> None:
    assert opened(tmp_path, train, name).digest() == opened(tmp_path, lines(ROWS)).digest()
