"""Records on disk: what is written to the letter, what is left out, and what a reader refuses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from everlora.archive.schema import SCHEMA, OpenRecord, Record, loaded, read_json, read_rows, write, write_rows
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject
from sealing import edit


class Facts(Record):
    """A record with a field out of alphabetical order and one at its default."""

    name: str
    done: float | None
    also: str = ""

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        """An older schema had no ``done``."""
        return {"done": None, **content}


class OpenFacts(OpenRecord):
    """A record that keeps what it does not know."""

    name: str


def test_records_are_written_in_their_own_order_without_defaults(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", Facts(name="ü", done=1.5))
    assert loaded(tmp_path / "a.yaml") == {"schema": SCHEMA, "name": "ü", "done": 1.5}  # the digest is taken off
    keys = [line.partition(":")[0] for line in (tmp_path / "a.yaml").read_text(encoding="utf-8").splitlines()]
    assert keys == ["schema", "name", "done", "digest"]
    write(tmp_path / "a.json", Facts(name="ü", done=None, also="x"))
    digest = hashlib.sha256(b'{"also": "x", "done": null, "name": "\\u00fc", "schema": 5}').hexdigest()
    wanted = f'{{\n "schema": 5,\n "name": "ü",\n "done": null,\n "also": "x",\n "digest": "{digest}"\n}}\n'
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == wanted
    assert read_json(Facts, tmp_path / "a.json") == Facts(name="ü", done=None, also="x")


def test_a_record_does_not_change_and_only_an_open_one_keeps_more(tmp_path: Path) -> None:
    facts = Facts(name="a", done=None)
    with pytest.raises(ValidationError, match="frozen"):
        facts.name = "b"  # type: ignore[misc]
    assert Facts.model_validate({"name": "a", "done": None, "more": 1}) == facts
    assert OpenFacts.model_validate({"name": "a", "more": 1}).plain() == {"name": "a", "more": 1}


def test_rows_are_one_a_line_in_letters_of_every_script(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [Facts(name="好", done=1.0), {"name": "b", "done": None}])
    assert rows.read_text(encoding="utf-8") == '{"name": "好", "done": 1.0}\n{"name": "b", "done": null}\n'
    assert read_rows(Facts, rows) == [Facts(name="好", done=1.0), Facts(name="b", done=None)]


def test_an_older_schema_is_migrated_and_ours_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for older in ('{"name": "a"}', '{"schema": 1, "name": "a"}', '{"schema": 2, "name": "a"}'):
        file.write_text(older)
        assert read_json(Facts, file) == Facts(name="a", done=None)
    file.write_text('{"schema": 5, "name": "a"}')
    edit(file, lambda content: content)
    with pytest.raises(FolderError, match=r"a\.json is damaged, or of an older everlora; restore it from a copy"):
        read_json(Facts, file)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 6, "name": "a", "done": 1}')
    with pytest.raises(FolderError, match=r"newer everlora \(schema 6, this one reads up to 5\); update everlora"):
        read_json(Facts, tmp_path / "a.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": "3"}', "\xff", '{"name": 1, "done": 1}'])
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(FolderError, match=r"a\.json is damaged"):
        read_json(Facts, tmp_path / "a.json")
    with pytest.raises(FolderError, match=r"a\.json is damaged"):
        read_rows(Facts, tmp_path / "a.json")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    for read in (read_json, read_rows):
        with pytest.raises(FolderError, match=r"cannot read .*a\.json: No such file or directory"):
            read(Facts, tmp_path / "a.json")
