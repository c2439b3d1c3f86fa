"""Data files as people keep them, packed, in folders, in spreadsheets: read, or refused with a way out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

from everlora.benchmarks import open_stream
from everlora.core.errors import DataError
from everlora.data import packed
from everlora.data.rows import read_table

ROWS = [{"text": f"text {n}", "label": ("good", "bad")[n % 2]} for n in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.jsonl.zip", zipped(a_jsonl=LINES)),
        ("a.zip", zipped(rows_jsonl=LINES)),
        ("a.jsonl", bz2.compress(LINES)),
        ("A.JSONL.GZ", gzip.compress(LINES, mtime=0)),
    ],
    ids=["bz2", "zip of its name", "zip", "bz2 without an ending", "gz"],  # the bytes hold the time
)
def test_packed_rows_are_read(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert list(read_table(tmp_path / name).rows) == ROWS


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.zip", zipped(a_jsonl=LINES, b_jsonl=LINES), r"holds 2 files \(a.jsonl, b.jsonl\); unpack it"),
        ("a.zip", zipped(a_txt=LINES), "cannot tell the kind of file"),
        ("a.zip", b"PK\x03\x04 no archive", "not a sound zip file"),
        ("a.csv.bz2", bz2.compress(LINES)[:-9], "truncated bzip2"),
        ("a.csv.bz2", LINES, "not a sound bzip2 file"),
    ],
    ids=["two files", "unknown kind", "no zip", "cut off", "no bz2"],
)
def test_what_cannot_be_unpacked_is_one_line(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.zip"])
def test_a_bomb_is_refused_long_before_it_is_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "ALWAYS", 1 << 20)
    zeros = bytes(8 << 20)
    data = {"gz": gzip.compress, "bz2": bz2.compress, "zip": lambda one: zipped(a_jsonl=one)}[name.split(".")[-1]]
    (tmp_path / name).write_bytes(data(zeros))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_table(tmp_path / name)


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    others = [{"text": f"other {n}", "label": "bad"} for n in range(2)]
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(others)).save_to_disk(str(tmp_path / "saved"))
    mine = tmp_path / "mine.yaml"
    mine.write_text("tasks:\n  - {name: t, train: saved/train, test: saved/test}\n")
    (task,) = open_stream(mine)
    assert ([row.target for row in task.train], len(task.test)) == (["good", "bad", "good", "bad"], 2)
    with pytest.raises(DataError, match=r"saved holds several splits of a data set; name one of them: .*saved/train"):
        read_table(tmp_path / "saved")
    with pytest.raises(DataError, match="is a data set of save_to_disk; write a YAML file with train: "):
        open_stream(tmp_path / "saved")
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        read_table(tmp_path)


def test_excel_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(zipped(a_xml=b""))
    with pytest.raises(DataError, match=r"install everlora\[excel\], or save as CSV"):
        read_table(tmp_path / "a.xlsx")


def test_excel_is_read_by_its_first_row(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for record in (["text", "label"], *([row["text"], row["label"]] for row in ROWS), [None, None]):
        book.active.append(record)
    book.save(tmp_path / "a.xlsx")
    table = read_table(tmp_path / "a.xlsx")
    assert list(table.rows) == ROWS
    assert table.at(0).endswith("a.xlsx, row 2")
