"""Reads folders that people have on disk: one task's splits as O-LoRA, SAPT, TRACE or we write them.

```
O-LoRA   CL_Benchmark/<family>/<task>/{train,dev,test}.json   [{"sentence": ..., "label": ...}], labels.json beside
SAPT     CL_Benchmark/SuperNI/<task>/{train,dev,test}.json    {"Definition": [...], "Instances": [{"input", "output"}]}
TRACE    <task>/{train,eval,test}.json                        [{"prompt": ..., "answer": ...}]
ours     <task>/{train,dev,test}.jsonl.gz                     as above, one object a line; definition.json beside
yours    <task>/{train,dev,test}.csv, .tsv or .parquet        text and label, prompt and completion, ...
```

What such a folder is, its files say; a kind that is given is checked against them. Public folders leak: O-LoRA's dev
is its test, and some TRACE prompts are in train and test. Such rows are left out of train and dev, and counted.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everlora.core.errors import DataError, nearest
from everlora.data.dialects import familiar
from everlora.data.packed import plain_name
from everlora.data.prompt_parts import spare
from everlora.data.rows import SUFFIXES, Row, Table, decode, is_data_file, parse_json, read_bytes, read_table
from everlora.metrics.texts import normalise

Kind = Literal["o-lora", "superni", "trace"]

SPLITS = {"train": ("train",), "dev": ("dev", "eval", "validation", "valid", "val"), "test": ("test",)}
ENDINGS = tuple(end + packed for end in SUFFIXES for packed in (".gz", "", ".bz2", ".zip"))
COLUMNS: Mapping[Kind, tuple[str, str]] = {
    "o-lora": ("sentence", "label"),
    "superni": ("input", "output"),
    "trace": ("prompt", "answer"),
}


@dataclass(frozen=True, kw_only=True)
class TaskFolder:
    """Holds what a task's folder holds.

    Attributes:
        kind: how its rows are written; None where it is our own way.
        tables: the rows of each split.
        labels: the closed set of answers, if the folder names one.
        definition: the instruction, if the folder has one.
        left_out: rows that are no rows, by split and reason.
    """

    kind: Kind | None
    tables: Mapping[str, Table]
    labels: tuple[str, ...] = ()
    definition: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_folder(folder: Path, kind: Kind | None = None) -> TaskFolder:
    """Read a task's folder.

    Args:
        folder: holds the splits of one task.
        kind: how its rows must be written; by default the files say.

    Raises:
        DataError: train or test is missing, a row cannot be read, or the folder is of another kind.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder that holds the task's train and test files")
    _refuse_slips(folder)
    paths = {split: _file(folder, names) for split, names in SPLITS.items()}
    for split in ("train", "test"):
        if paths[split] is None:
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise DataError(f"{folder} has no {split} file ({split}.json, .jsonl, .csv, ...); it holds: {found}")
    tables, definition = {}, ""
    for split, path in paths.items():
        if path is not None:
            tables[split], definition = _table(path, definition)
    found_kind = _kind(tables["train"])
    if kind is not None and found_kind != kind:
        wanted, there = " and ".join(COLUMNS[kind]), ", ".join(tables["train"].rows[0])
        raise DataError(f"{tables['train'].at(0)}: {kind} rows have the columns {wanted}, found: {there}")
    labels = read_labels(folder / "labels.json")
    tables, left_out = without_blank_labels(tables, labels, always=found_kind == "o-lora")
    if found_kind == "o-lora":
        tables = {split: _renamed(table, {"sentence": "text"}) for split, table in tables.items()}
    if found_kind == "superni" and labels:
        tables = {split: _labelled(table) for split, table in tables.items()}
    text = definition or _definition(folder / "definition.json")
    return TaskFolder(kind=found_kind, tables=tables, labels=labels, definition=text, left_out=left_out)


def task_folder(data_dir: Path, name: str, *, families: bool = False) -> Path:
    """Return a task's folder: ``<data_dir>/<task>``, or with ``families`` also O-LoRA's ``<data_dir>/NLI/MNLI``.

    Raises:
        DataError: there is none, or there are several.
    """
    if not data_dir.is_dir():
        raise DataError(f"the data folder {data_dir} does not exist; give --data-dir a folder with one folder a task")
    if (data_dir / name).is_dir():
        return data_dir / name
    below = [p for p in sorted(data_dir.glob("*/*")) if p.is_dir() and plain_spelling(p.name) == plain_spelling(name)]
    places = [p for p in below if any((p / f"train{end}").is_file() for end in (".json", ".json.gz"))]
    if families and len(places) > 1:
        raise DataError(f"the data folder {data_dir} has {name!r} twice: {places[0]} and {places[1]}; move one away")
    if families and places:
        return places[0]
    hint = f"; did you mean {below[0].parent}?" if below else "; wanted <data_dir>/<task>/train.jsonl.gz"
    raise DataError(f"the data folder {data_dir} has no folder {name!r}{hint}")


def plain_spelling(name: str) -> str:
    """Return a name without case, dashes and underscores (``SST-2`` is ``sst2``), one for what has two names."""
    plain = name.lower().replace("-", "").replace("_", "")
    return {"boolq": "boolqa", "ag": "agnews"}.get(plain, plain)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a list of label names; nothing where there is no such file.

    Raises:
        DataError: the file holds something else.
    """
    if not path.exists():
        return ()
    labels = parse_json(decode(read_bytes(path), path), str(path))
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{path} must hold a list of label names")
    return tuple(labels)


def _refuse_slips(folder: Path) -> None:
    """Refuse a split whose file is misspelt, which would be left out without a word."""
    known = [name for names in SPLITS.values() for name in names]
    for path in sorted(folder.iterdir()):
        stem = path.name.partition(".")[0]
        if stem not in known and is_data_file(path.name) and difflib.get_close_matches(stem, known, cutoff=0.7):
            raise DataError(f"{path} is no split's file{nearest(stem, known)} rename it, or move it away")


def _file(folder: Path, names: tuple[str, ...]) -> Path | None:
    found = [path for name in names for end in ENDINGS if (path := folder / f"{name}{end}").is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has {found[0].name} and {found[1].name} for one split; move one away")
    return next(iter(found), None)


def _kind(table: Table) -> Kind | None:
    found = set(table.rows[0])
    return next((kind for kind, columns in COLUMNS.items() if set(columns) <= found), None)


def _table(path: Path, definition: str) -> tuple[Table, str]:
    """Return rows of a file, and the definition that SuperNI files carry around them."""
    if not plain_name(path.name).endswith(".json"):
        return familiar(read_table(path)), definition
    text = decode(read_bytes(path), path)
    if '"Instances"' not in text[:100_000] or not text.lstrip().startswith("{"):
        return familiar(read_table(path)), definition
    content = parse_json(text, str(path))
    rows = content.get("Instances") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: 'Instances' must be a list of at least one row")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: not an object with input and output but {type(row).__name__}")
    instruction = content.get("Definition") or ""
    instruction = "\n".join(map(str, instruction)) if isinstance(instruction, list) else str(instruction)
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1)), definition or instruction


def _definition(path: Path) -> str:
    if not path.is_file():
        return ""
    content = parse_json(decode(read_bytes(path), path), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("definition"), str):
        raise DataError(f'{path} must hold {{"definition": "..."}}')
    return str(content["definition"])


def without_blank_labels(
    tables: Mapping[str, Table], labels: tuple[str, ...], *, column: str = "label", always: bool = False
) -> tuple[dict[str, Table], dict[str, int]]:
    """Leave out rows labelled with punctuation alone, as are 131 of MNLI's test rows in O-LoRA: nobody agreed on them.

    After normalisation such a label is empty, and an empty answer would be right. Rows stay where no label set says
    that theirs is none, unless ``always``.
    """
    kept, left_out = {}, Counter[str]()
    for split, table in tables.items():
        stay = []
        for index, row in enumerate(table.rows):
            label = row.get(column)
            if (
                (labels or always)
                and isinstance(label, str)
                and label not in labels
                and label
                and not normalise(label)
            ):
                left_out[f"{split}: the label is {label!r}"] += 1
            else:
                stay.append(index)
        kept[split] = table if len(stay) == len(table.rows) else table.pick(stay)
    return kept, dict(left_out)


def _renamed(table: Table, names: Mapping[str, str]) -> Table:
    for index, row in enumerate(table.rows):
        for column, ours in names.items():
            if column in row and ours in row:
                raise DataError(
                    f"{table.at(index)}: columns {column!r} and {ours!r} both hold a text; keep one of them"
                )
    rows = [{names.get(column, column): value for column, value in row.items()} for row in table.rows]
    return replace(table, rows=rows, called={ours: column for column, ours in names.items()})


def _labelled(table: Table) -> Table:
    """Return rows whose answers are labels: the text and the single answer."""

    def label(row: Row, at: str) -> Any:
        value = row.get("output")
        if isinstance(value, list) and len(value) != 1:
            raise DataError(f"{at}: {len(value)} answers where labels.json asks for one label")
        return value[0] if isinstance(value, list) else value

    rows = [
        {
            **spare(row, ("input", "output")),
            "text": row.get("input"),
            "label": label(row, table.at(index)),
        }
        for index, row in enumerate(table.rows)
    ]
    return replace(table, rows=rows)
