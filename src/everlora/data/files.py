"""Reads a user's own stream: a YAML file that lists tasks and where their rows are.

```yaml
name: support-desk            # the file's name if left out
tasks:
  - name: tickets
    train: tickets/train.jsonl    # relative to this file; or a hub id such as stanfordnlp/imdb
    test: tickets/test.csv
    dev: tickets/dev.parquet      # optional, also called validation
    labels: [billing, technical]  # the closed set; taken from train if left out
    instruction: Decide which desk should answer.
  - name: replies
    train: replies.jsonl          # rows with prompt and completion, prompt and answer, or messages
    prompt_column: ask            # other names of columns: text_, label_, completion_, messages_, system_column
    ignore_columns: [context]     # meant not to be read
    test_fraction: 0.2            # no test file: a fifth of train becomes the test split
    metric: rouge_l               # how answers are scored; exact_match if left out
  - name: mnli
    source: {kind: o-lora, path: CL_Benchmark/NLI/MNLI}   # what other tools left on disk, see `sources`
```
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from everlora.core.errors import DataError, nearest
from everlora.data.chat import each_turn
from everlora.data.checks import Overlap
from everlora.data.columns import ColumnNames
from everlora.data.dialects import familiar
from everlora.data.hub import load_table
from everlora.data.prompt_parts import check_instruction, without_columns
from everlora.data.rows import Table, decode, is_data_file, read_bytes, read_table
from everlora.data.sources import StreamSource, TaskSource, check_metric, expand, known_task, read_source
from everlora.data.stream import TaskStream, left_out_note
from everlora.data.task import Task, Turns
from everlora.data.tasks import build_task, split_off
from everlora.metrics.answers import DEFAULT
from everlora.runtime.safe_yaml import NotYaml, read_yaml

SPLITS = ("train", "test", "dev", "validation")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Labels = Annotated[list[StrictStr], Field(min_length=1)]


class HubSplit(BaseModel):
    """Holds a split on the hub, spelled out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: StrictStr
    config: StrictStr | None = None
    split: StrictStr | None = None


Source = StrictStr | HubSplit


class TaskFile(BaseModel):
    """Holds one entry under ``tasks``; see `Task` and `ColumnNames`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: StrictStr
    source: TaskSource | None = None
    train: Source | None = None
    test: Source | None = None
    dev: Source | None = Field(default=None, validation_alias=AliasChoices("dev", "validation"))
    labels: Labels | None = None
    instruction: StrictStr = ""
    text_column: StrictStr | None = None
    label_column: StrictStr | None = None
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    prompt_column: StrictStr | None = None
    completion_column: StrictStr | None = None
    messages_column: StrictStr | None = None
    system_column: StrictStr | None = None
    ignore_columns: tuple[StrictStr, ...] = ()
    """Columns that are meant not to be read."""
    shared_labels: bool | None = None
    metric: StrictStr | None = None
    learn_turns: Turns = "last"
    """Which answers of a chat are learned."""
    overlap: Overlap | None = None
    """What becomes of rows that two splits share: an error, unless the source is known to have some."""

    @property
    def columns(self) -> ColumnNames:
        return ColumnNames(**{one.name: getattr(self, one.name) for one in fields(ColumnNames)})

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        return value and check_metric(value)

    @model_validator(mode="after")
    def _one_test(self) -> TaskFile:
        if (self.train is None) == (self.source is None):
            raise ValueError("give either train or source")
        if self.source is not None and (self.test or self.dev):
            raise ValueError("give either train, test and dev, or source, which has all of them")
        if self.source is None and (self.test is None) == (self.test_fraction is None):
            raise ValueError("give either test or test_fraction")
        return self


class StreamFile(BaseModel):
    """Holds the whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr | None = None
    note: StrictStr = ""
    source: StreamSource | None = None
    tasks: list[TaskFile] = Field(default=[], min_length=1)

    @model_validator(mode="after")
    def _some_tasks(self) -> StreamFile:
        if bool(self.tasks) == (self.source is not None):
            raise ValueError("give either tasks, or a source to take all tasks from")
        return self


def stream_from_yaml(path: Path, tasks: Sequence[str] | None = None) -> TaskStream:
    """Load the stream that the YAML file at ``path`` describes, or the named ``tasks`` of it in that order.

    Raises:
        DataError: the YAML file, a data file or a row cannot be used.
    """
    spec = read_stream_file(path)
    by_name = {entry.name: entry for entry in spec.tasks or _all_of(spec.source, path)}
    for name in tasks or ():
        if name not in by_name:
            raise DataError(f"{path} has no task {name!r}{nearest(name, by_name)}")
    loaded = tuple(load_task(by_name[name], path) for name in tasks or by_name)
    note = " ".join(filter(None, (spec.note, left_out_note(loaded))))
    return TaskStream(name=spec.name or path.stem, tasks=loaded, note=note)


def read_stream_file(path: Path) -> StreamFile:
    """Read and check the YAML file without opening the data.

    Raises:
        DataError: it is missing, not YAML, has an unknown or ill-typed key, or names a task twice.
    """
    text = decode(read_bytes(path), path)
    try:
        content = read_yaml(text)
    except NotYaml as error:
        raise DataError(f"{path}{error.where}: not sound YAML ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: wanted a mapping with the key 'tasks', found {type(content).__name__}")
    try:
        spec = StreamFile.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {_explain(error, content)}") from None
    names = [entry.name for entry in spec.tasks]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path} names the task {name!r} twice; give each task its own name")
    return spec


def load_task(entry: TaskFile, path: Path) -> Task:
    """Load the task that one entry of the file at ``path`` describes.

    Raises:
        DataError: a data file or a row cannot be used.
    """
    task = _from_files(entry, path) if entry.source is None else _from_source(entry, entry.source, path)
    check_instruction(entry.name, entry.instruction, task.form)
    return each_turn(task) if entry.learn_turns == "all" else task


def _from_files(entry: TaskFile, path: Path) -> Task:
    tables = {
        split: split_table(source, path, on_hub, entry)
        for split, on_hub, source in (
            ("train", "train", entry.train),
            ("test", "test", entry.test),
            ("dev", "validation", entry.dev),
        )
        if source is not None
    }
    if entry.test_fraction is not None:
        tables["train"], tables["test"] = split_off(
            tables["train"], entry.test_fraction, entry.columns, named=bool(entry.labels)
        )
    return build_task(
        entry.name,
        tables,
        labels=entry.labels,
        instruction=entry.instruction,
        columns=entry.columns,
        overlap=entry.overlap or "error",
        metric=entry.metric or DEFAULT,
        source="; ".join(dict.fromkeys(table.where for table in tables.values())),
        shared_labels=entry.shared_labels,
    )


def _all_of(source: StreamSource | None, path: Path) -> list[TaskFile]:
    assert source is not None
    config = path.parent / source.config if source.config else None
    tasks = expand(source, path.parent / source.path, config)
    return [TaskFile(name=name, source=one, overlap=source.overlap) for name, one in tasks]


def _from_source(entry: TaskFile, source: TaskSource, path: Path) -> Task:
    """Load a task from what another tool left on disk; what the entry says wins over what is known of the task."""
    place = path.parent / source.path
    found = read_source(source, place, entry.name)
    tables = {split: without_columns(table, entry.ignore_columns) for split, table in found.tables.items()}
    if entry.test_fraction is not None and "test" in tables:
        raise DataError(f"{path}: task {entry.name!r} has a test split at {place}; leave test_fraction out")
    if entry.test_fraction is not None:
        tables["train"], tables["test"] = split_off(
            tables["train"], entry.test_fraction, entry.columns, named=bool(entry.labels or found.labels)
        )
    if "test" not in tables:
        raise DataError(f"{path}: task {entry.name!r} has no test split at {place}; give test_fraction")
    known = known_task(entry.name, found.kind)
    task = build_task(
        entry.name,
        tables,
        # Rows in O-LoRA's way name their labels themselves; a folder may have fewer than the published task.
        labels=entry.labels or found.labels or (None if found.kind == "o-lora" else known.labels),
        instruction=entry.instruction or found.definition or known.instruction,
        columns=entry.columns,
        overlap=entry.overlap or ("drop" if found.kind else "error"),
        metric=entry.metric or known.metric,
        source=str(place),
        left_out=found.left_out,
        shared_labels=entry.shared_labels,
    )
    check_instruction(entry.name, found.definition, task.form)
    return task


def split_table(source: Source, path: Path, split: str, entry: TaskFile) -> Table:
    """Read a split; rows of another tool's dialect become rows of ours, unless their columns are named."""
    if isinstance(source, str) and not os.path.exists(path.parent / source) and not is_data_file(source):
        source = HubSplit(hub=source) if HUB_ID.fullmatch(source) else source
    if isinstance(source, str):
        table = read_table(path.parent / source)
    else:
        instead = f"or point {path} to a local file"
        table = load_table(source.hub, source.config, source.split or split, instead=instead)
    table = without_columns(table, entry.ignore_columns)
    return table if entry.columns else familiar(table)


def _explain(error: ValidationError, content: dict[Any, Any]) -> str:
    """Turn one of pydantic's complaints, an unknown key if there is one, into a clause."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    where = _place(first["loc"], content)
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = TaskFile if "task " in where else StreamFile
        if "HubSplit" in first["loc"]:
            model = HubSplit
        elif "source" in first["loc"][:-1]:
            model = TaskSource if model is TaskFile else StreamSource
        known = [*model.model_fields, *(["validation"] if model is TaskFile else [])]
        return f"unknown key in {where}{nearest(str(first['loc'][-1]), known)}"
    if first["loc"][-2:-1] and first["loc"][-2] in SPLITS and first["type"] != "missing":
        return f"{where}: must be a file, or the id of a data set on the hub, found {first['input']!r}"
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
        return f"{where}: YAML reads {first['input']!r} as {type(first['input']).__name__}; put it in quotes"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"


def _place(loc: tuple[int | str, ...], content: dict[Any, Any]) -> str:
    """Name the task by its name, or by its position from 1, and then the key."""
    path = [part for part in loc if part not in ("str", "HubSplit") and "literal[" not in str(part)]
    if len(path) < 2 or path[0] != "tasks" or not isinstance(path[1], int):
        return repr(".".join(map(str, path)))
    listed = content["tasks"]
    entry = listed[path[1]] if isinstance(listed, list) else None
    name = entry.get("name", path[1] + 1) if isinstance(entry, dict) else path[1] + 1
    inside = ".".join(map(str, path[2:]))
    return f"task {name!r}" + (f", {inside!r}" if inside else "")
