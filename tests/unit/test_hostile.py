"""Files that nobody writes by mistake: one line each, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from everlora import EverloraError, load
from everlora.core.errors import LONGEST, DataError, ModelError, printable
from everlora.data.images import to_array
from everlora.data.rows import read_table
from everlora.data.task import Example, Task
from everlora.runtime.safe_yaml import NotYaml, read_yaml

BOMB = "a0: &a0 {k: x}\n" + "".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}\n" for k in range(1, 10))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2023-02-30", 2, "'2023-02-30' cannot be read as timestamp"),
        ("a: !!int x", 1, "'x' cannot be read as int"),
        ("a: !!timestamp x", 1, "'x' cannot be read as timestamp"),
        ("a: !!python/object/apply:os.system [ls]", 1, "could not determine a constructor"),
        ("a: " + "9" * 10_000, 1, "cannot be read as int"),
        ("a: " + "[" * 100_000, 1, "more than 100 levels"),
        ("&a {tasks: *a}", 1, "the value 'a' contains itself"),
        (BOMB, 7, "more than 1,000,000 values, with all aliases written out"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands twice"),
        ("{[a]: b}", 1, "unhashable key"),
        ("a: 1\nb: !!set {x, y}", 2, "a set (!!set) has no order"),
        ("a: [", 1, "did not find expected node content"),
    ],
)
def test_yaml_is_counted_before_it_is_made(text: str, line: int, reason: str) -> None:
    with pytest.raises(NotYaml) as refused:
        read_yaml(text)
    assert (refused.value.line, reason in str(refused.value)) == (line, True), str(refused.value)


def test_sound_yaml_is_read_as_it_always_was() -> None:
    text = "a: &x {k: 1, d: 2023-02-28}\nb: {<<: *x, k: 2}\nc: [*x, yes, 1e-4, 0x10]\n"
    found = read_yaml(text)
    assert (found["b"]["k"], str(found["b"]["d"]), found["c"][0]) == (2, "2023-02-28", found["a"])
    assert found["c"][1:] == [True, "1e-4", 16]
    assert read_yaml("[" * 99 + "]" * 99) is not None


def test_a_message_is_one_line_that_commands_no_terminal() -> None:
    said = str(EverloraError("file \x1b]0;x\x07\x9b31m\u202e\ud800 of\nä 猫"))
    assert said == r"file \u001b]0;x\u0007\u009b31m\u202e\ud800 of ä 猫"
    assert printable("a\tb\nc") == "a\tb\nc"
    long = str(EverloraError("label '" + "x" * 5_000_000 + "' is unknown; rename it"))
    assert len(long) <= LONGEST
    assert long.endswith("rename it")


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read_table(path)
    return str(error.value)


def test_what_unpacks_to_far_more_than_data_do_is_refused(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1 << 24), mtime=0) * 17
    assert "unpacks to more than 268,435,456" in refused(tmp_path / "a.jsonl.gz", bomb)
    column = pyarrow.DictionaryArray.from_arrays(np.zeros(30_000, dtype=np.int32), pyarrow.array(["x" * 10_000]))
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), out, compression="zstd")
    assert "unpacks to more than" in refused(tmp_path / "a.parquet", out.getvalue())


def test_a_wide_table_is_refused_at_once(tmp_path: Path) -> None:
    head = ",".join(f"c{k}" for k in range(100_000)).encode()
    assert "row 1: 100,000 columns" in refused(tmp_path / "a.csv", head + b"\n1\n")
    pairs = ",".join(f'"k{k}": 1' for k in range(100_000)).encode()
    assert "row 1: 100,000 columns" in refused(tmp_path / "a.jsonl", b"{" + pairs + b"}")
    assert "the key 'k7' stands twice" in refused(tmp_path / "b.jsonl", b"{" + pairs + b', "k7": 2}')


def test_a_picture_beyond_all_pictures_is_refused_unread() -> None:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.new("1", (9000, 9000)).save(out, "png")
    with pytest.raises(DataError, match="row 3: an image of 9000 x 9000 pixels"):
        to_array(out.getvalue(), "row 3")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no regular file but a device or a pipe"):
        read_table(tmp_path / "a.jsonl")


def test_a_name_that_no_folder_can_have_is_refused_before_training() -> None:
    rows = [Example("a", "b")]
    assert Task(name="x" * 200, train=rows, test=rows).name
    for name in ("x" * 201, "猫" * 67):
        with pytest.raises(DataError, match=r"has 201 bytes, too long for the name of a folder"):
            Task(name=name, train=rows, test=rows)


@pytest.mark.parametrize("name", ["evil.bin", "../other/model.safetensors", "a/b.safetensors"])
def test_an_index_names_safetensors_of_its_own_folder_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ModelError, match="which is no safetensors file of its folder"):
        load(str(tmp_path), device="cpu")
