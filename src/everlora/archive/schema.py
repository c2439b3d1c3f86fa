"""Makes files of records, and records of files: one schema number for all, migrations from older ones.

A field without a default stands in every file; one with a default is left out where it says no more than that. A file
carries the number of the schema that wrote it, and since schema 4 a hash of all that it says; rows of ``*.jsonl`` go
by the COMMIT of their folder, which seals them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from everlora.archive.atomic import as_json, write_text
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject
from everlora.runtime.safe_yaml import read_yaml

SCHEMA = 5
"""1: commits that did not say whose they are. 2: environment.json had no number, and what was untrained no entries of
training. 3: every file is a record of `everlora.archive.records`. 4: every file has a hash of itself; how a task was
scored stands apart from how it was trained. 5: what is stored is named as in parts' own law of memory."""
DIGEST = "digest"
_RENAMED = {
    "kept_elements": "stored_elements",
    "kept_bytes": "memory_bytes",
    "kept_rows": "stored_rows",
    "kept_row_bytes": "stored_row_bytes",
}
"""Names of entries since schema 5, by those of before."""

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Is a value that is written to a run folder; nothing is edited afterwards."""

    model_config = ConfigDict(frozen=True)

    def plain(self) -> JsonObject:
        """Return the record as plain data, without what says no more than its default."""
        # Without defaults, so that a field that a later version adds changes no file of a run that does not use it.
        found: JsonObject = self.model_dump(mode="json", exclude_defaults=True)
        return found

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        """Bring what an older schema wrote to ``path`` to this one; most records have not changed."""
        return content


class OpenRecord(Record):
    """Is a record that keeps entries which it does not know, since all that it has identifies it."""

    model_config = ConfigDict(extra="allow")


def read_json(kind: type[R], path: Path) -> R:
    """Read a record from a JSON file.

    Raises:
        FolderError: the file is missing, damaged, or of a newer everlora.
    """
    return restored(kind, path, loaded(path))


def loaded(path: Path) -> JsonObject:
    """Read the mapping in a JSON or YAML file, whatever it says, unless a newer everlora wrote it.

    Raises:
        FolderError: the file is missing, no mapping, of a newer schema, or says something else than was written.
    """
    try:
        content = _parsed(path, path.read_text(encoding="utf-8"))
        schema = content.get("schema", 1)
        if not isinstance(schema, int):
            raise ValueError(f"schema {schema!r}")
    except OSError as error:
        raise FolderError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, RecursionError) as error:  # no JSON, YAML or UTF-8, or another shape
        raise _damaged(path) from error
    if schema > SCHEMA:
        raise FolderError(
            f"{path} was written by a newer everlora (schema {schema}, this one reads up to {SCHEMA}); update everlora"
        )
    # Whatever number stands there: it may be what was changed.
    if (schema >= 4 or DIGEST in content) and content.pop(DIGEST, None) != _digest(content):
        raise FolderError(f"{path} was changed after it was written, or is damaged; restore it from a copy")
    return dict(content)


def schema_of(path: Path) -> int:
    """Return the number of the schema that wrote a file.

    Raises:
        FolderError: the file is missing or damaged.
    """
    schema = loaded(path).get("schema", 1)
    return schema if isinstance(schema, int) else 1


def _parsed(path: Path, text: str) -> JsonObject:
    content: JsonObject = read_yaml(text) if path.suffix == ".yaml" else json.loads(text)
    return content


def _digest(content: JsonObject) -> str:
    """Hash what a file says, whatever the order of its entries."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def restored(kind: type[R], path: Path, content: JsonObject) -> R:
    """Make a record of what stands in ``path``.

    Raises:
        FolderError: entries are missing or of another kind.
    """
    try:
        # Files that are of this schema are taken as they are: a migration must not mend what is damaged.
        if content.get("schema") != SCHEMA:
            content = kind.migrated(dict(content), path)
        return kind.model_validate(content)
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error


def write(path: Path, record: Record) -> None:
    """Replace a JSON or YAML file by a record, in one step."""
    content = {"schema": SCHEMA, **record.plain()}
    # Of what a reader will find: a file need not give back every value as it was in memory.
    content[DIGEST] = _digest(_parsed(path, _text(path, content)))
    write_text(path, _text(path, content))


def _text(path: Path, content: JsonObject) -> str:
    return yaml.safe_dump(content, sort_keys=False) if path.suffix == ".yaml" else as_json(content)


def renamed(content: JsonObject) -> JsonObject:
    """Return entries of schema 4 and before under their names of today, those of what a learner holds, too."""
    found = {_RENAMED.get(key, key): value for key, value in content.items()}
    if isinstance(holdings := found.get("holdings"), dict):
        found["holdings"] = renamed(holdings)
    return found


def write_rows(path: Path, rows: Iterable[Record | Mapping[str, object]]) -> None:
    """Write rows as JSON Lines."""
    plain = (row.plain() if isinstance(row, Record) else row for row in rows)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain), encoding="utf-8")


def read_rows(kind: type[R], path: Path) -> list[R]:
    """Read rows of JSON Lines.

    Raises:
        FolderError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return [kind.model_validate_json(line) for line in lines]
    except OSError as error:
        raise FolderError(f"cannot read {path}: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> FolderError:
    return FolderError(f"{path} is damaged, or of an older everlora; restore it from a copy")
