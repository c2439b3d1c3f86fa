"""Each cell is read under the name above it: headers of CSV, Excel and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlora.core.errors import DataError
from everlora.data.rows import read_table
from everlora.data.sheet import sheet_table

SHEET = Path("a.xlsx")


def written(folder: Path, text: str) -> Path:
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


def test_two_columns_of_one_name_are_refused_in_parquet_as_in_csv(tmp_path: Path) -> None:
    twice = pa.table([["x"], ["good"], ["bad"]], names=["text", "label", "label"])
    pq.write_table(twice, tmp_path / "a.parquet")
    for path in (tmp_path / "a.parquet", written(tmp_path, "text,label,label\nx,good,bad\n")):
        with pytest.raises(DataError, match=f"{path.name}: two columns are called 'label'; rename one"):
            read_table(path)


def test_the_index_of_pandas_in_excel_shifts_nothing() -> None:
    table = sheet_table([[None, "text", "label"], [0, "fine film", "good"], [1, "dull film", "bad"]], SHEET)
    assert table.rows == [{"": 0, "text": "fine film", "label": "good"}, {"": 1, "text": "dull film", "label": "bad"}]


def test_a_column_of_excel_without_a_name_shifts_nothing() -> None:
    empty = [["text", None, "label", None], ["x", None, "good", None], ["y", None, "bad"]]
    assert sheet_table(empty, SHEET).rows == [{"text": "x", "label": "good"}, {"text": "y", "label": "bad"}]
    with pytest.raises(DataError, match=r"a.xlsx, row 3: a cell in column 2, which has no name in row 1; name it"):
        sheet_table([["text", None, "label"], ["x", None, "good"], ["y", "z", "bad"]], SHEET)
    with pytest.raises(DataError, match=r"a.xlsx: two columns are called 'label'; rename one"):
        sheet_table([["text", "label", " label"], ["x", "good", "bad"]], SHEET)


JOINED: list[tuple[list[Any], list[Any]]] = [
    (["text", "label"], ["Text", "label "]),
    (["text", "label"], ["label", "text"]),
    (["text", "label"], ["text", "labels"]),
    (["text", "label", "source"], ["text", "label", "origin"]),
    (["id", "text", "label", "source"], ["text", "id", "labels", "source"]),
]


@pytest.mark.parametrize(("header", "again"), JOINED)
def test_a_header_inside_a_file_is_no_row(header: list[str], again: list[str], tmp_path: Path) -> None:
    row = [f"a cell of {number}" for number, _ in enumerate(header)]
    with pytest.raises(DataError, match=r"a.xlsx, row 3: the header stands here again"):
        sheet_table([header, row, again, row], SHEET)
    with pytest.raises(DataError, match=r"a.csv, row 3: the header stands here again"):
        read_table(written(tmp_path, "".join(f"{','.join(record)}\n" for record in (header, row, again, row))))


@pytest.mark.parametrize("row", [["text", "good"], ["label", "label"], ["a text", "label"], ["texts", "labels"]])
def test_a_row_with_a_word_of_the_header_is_a_row(row: list[str], tmp_path: Path) -> None:
    table = read_table(written(tmp_path, f"text,label\n{','.join(row)}\n"))
    assert [list(one.values()) for one in table.rows] == [row]


@pytest.mark.parametrize(
    ("first", "said"), [("", "empty"), ("  ", "empty"), (",", "empty"), ("# made by hand", "a comment")]
)
def test_a_first_line_that_is_no_header_is_named(first: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"a.csv, row 1: {said}, where the names of the columns must stand; remove it"):
        read_table(written(tmp_path, f"{first}\ntext,label\nx,good\n"))


def test_a_name_may_begin_with_a_hash(tmp_path: Path) -> None:
    assert list(read_table(written(tmp_path, "#,text,label\n1,x,good\n")).rows[0]) == ["#", "text", "label"]


def test_excel_reads_the_same_through_its_package(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for record in ([None, "text", None, "label"], [0, "x", None, "good"], [1, "y", None, "bad"]):
        book.active.append(record)
    book.save(tmp_path / "a.xlsx")
    assert [row["label"] for row in read_table(tmp_path / "a.xlsx").rows] == ["good", "bad"]
