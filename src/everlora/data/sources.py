"""Expands sources of tasks in a user's YAML: folders and descriptions that other tools have left on disk.

```yaml
source: {kind: o-lora, path: CL_Benchmark, config: configs/order1_configs}   # all tasks, in the order of the configs
source: {kind: trace, path: LLM-CL-Benchmark_500}                            # all tasks, in TRACE's order
source: {kind: dataset-info, path: benchmark/LFPT5, order: order2}           # EasyCL: benchmark_info.json says which,
                                                                             # dataset_options.json the label sets
tasks:
  - {name: nli, source: {kind: o-lora, path: CL_Benchmark/NLI/MNLI}}         # one task; without kind, the files say
  - {name: replies, source: {path: data/dataset_info.json, name: replies}}   # LlamaFactory
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr

from everlora.core.benchmark import DEFAULT_METRIC, TaskInfo, written_as
from everlora.core.errors import ConfigError, DataError
from everlora.data import dialects
from everlora.data.checks import Overlap
from everlora.data.folders import Kind, TaskFolder, plain_spelling, read_folder, task_folder, without_blank_labels
from everlora.data.rows import decode, parse_json, read_bytes
from everlora.metrics import answer_metric

AnyKind = Kind | Literal["dataset-info"]
CONFIGS = ("train_tasks.json", "test_tasks.json")


class TaskSource(BaseModel):
    """Holds one task from a folder or a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: AnyKind | None = None
    path: StrictStr
    name: StrictStr | None = None
    """The task's name there, in a ``dataset_info.json``; by default its name here."""


class StreamSource(BaseModel):
    """Holds all tasks of a folder or a description, in an order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: AnyKind | None = None
    path: StrictStr
    config: StrictStr | None = None
    """O-LoRA: the folder of task configs, one folder a task, which says what is learned and when."""
    order: StrictStr | None = None
    """EasyCL: which order of ``benchmark_info.json``; by default the first."""
    overlap: Overlap | None = None


def is_description(path: Path) -> bool:
    """Return whether ``path`` is a ``dataset_info.json``, or a folder that has one."""
    return path.name == dialects.INFO or (path / dialects.INFO).is_file()


def read_source(source: TaskSource, path: Path, name: str) -> TaskFolder:
    """Read the splits of one task; ``path`` is the source's, made absolute.

    Raises:
        DataError: the source is not of its kind, a split is missing, or a row cannot be read.
    """
    if source.kind == "dataset-info" or (source.kind is None and is_description(path)):
        info = path if path.is_file() else path / dialects.INFO
        tables, left_out = dialects.described(info, source.name or name)
        labels = dialects.options_of(info.parent / dialects.OPTIONS, source.name or name)
        tables, blank = without_blank_labels(tables, labels, column="completion")
        return TaskFolder(kind=None, tables=tables, labels=labels, left_out=left_out | blank)
    if source.name is not None:
        raise DataError(f"source {path}: 'name' belongs to dataset-info; here the path must end at the task's folder")
    return read_folder(path, source.kind)


def expand(source: StreamSource, path: Path, config: Path | None) -> list[tuple[str, TaskSource]]:
    """Return names and sources of the tasks of a whole stream, in order; paths are made absolute.

    Raises:
        DataError: the order cannot be told, or there is no such task.
    """
    if source.kind == "dataset-info" or (source.kind is None and is_description(path)):
        info = path if path.is_file() else path / dialects.INFO
        if not (info.parent / dialects.ORDERS).is_file():
            raise DataError(f"{info.parent} has no {dialects.ORDERS} to say an order; list its data sets under tasks")
        names = dialects.order_of(info.parent / dialects.ORDERS, source.order)
        return [(name, TaskSource(kind="dataset-info", path=str(info), name=name)) for name in names]
    if source.order is not None:
        raise DataError(f"source {path}: 'order' belongs to EasyCL's benchmark_info.json, and there is none")
    if config is not None:
        found = [(name, task_folder(path / family, name)) for family, name in _configured(config)]
    elif source.kind in ("trace", None) and (names := _order_of_trace(path, sure=source.kind == "trace")):
        found = [(name, task_folder(path, name)) for name in names]
    else:
        raise DataError(
            f"source {path}: nothing says in which order its tasks are learned; give config (O-LoRA's folder of task "
            f"configs), or list them under tasks, each with its own source"
        )
    return [(name, TaskSource(kind=source.kind, path=str(folder))) for name, folder in found]


def known_task(name: str, kind: Kind | None) -> TaskInfo:
    """Return what is known of a task from the benchmark whose folders are written as its own is."""
    benchmark = written_as(kind) if kind else None
    if benchmark is None:
        return TaskInfo(name=name)
    # O-LoRA's folders spell names in several ways (SST-2, BoolQA); the other benchmarks' names are the folders' names.
    spelling = plain_spelling if kind == "o-lora" else str
    known = next((one for one in benchmark.defined if spelling(one) == spelling(name)), None)
    return benchmark.task(known) if known else TaskInfo(name=name, metric=benchmark.metric or DEFAULT_METRIC)


def _order_of_trace(path: Path, *, sure: bool) -> tuple[str, ...]:
    """Return TRACE's tasks in its order; nothing where the folder lacks one and need not be TRACE's."""
    trace = written_as("trace")
    names = trace.tasks if trace else ()
    return names if sure or all((path / name).is_dir() for name in names) else ()


def _configured(config: Path) -> list[tuple[str, str]]:
    """Return family and name of each task that a folder of O-LoRA's configs trains, in order.

    Nothing in the folder numbers them: the k-th task is the one after which k tasks are tested.
    """
    if not config.is_dir():
        raise DataError(f"{config} is no folder; give the one that holds a folder of configs for each task")
    found: dict[int, tuple[str, str]] = {}
    for folder in sorted(p for p in config.iterdir() if p.is_dir()):
        trained, tested = (_tasks(folder / file) for file in CONFIGS)
        if len(trained) != 1:
            raise DataError(f"{folder / CONFIGS[0]} trains {len(trained)} data sets; wanted one task after another")
        if trained[0] not in tested:
            raise DataError(f"{folder}: {trained[0][1]!r} is trained, and {CONFIGS[1]} does not test it; mend one")
        if len(tested) in found:
            other = found[len(tested)][1]
            raise DataError(
                f"{config}: {other!r} and {trained[0][1]!r} are both followed by a test of {len(tested)} tasks; "
                f"their order cannot be told"
            )
        found[len(tested)] = trained[0]
    if not found:
        raise DataError(f"{config} holds no folders with {' and '.join(CONFIGS)}")
    gap = next((count for count in range(1, len(found) + 1) if count not in found), None)
    if gap is not None:
        raise DataError(f"{config}: no folder tests {gap} tasks, and one tests {max(found)}; task {gap} is missing")
    return [found[count] for count in sorted(found)]


def _tasks(path: Path) -> list[tuple[str, str]]:
    content: Any = parse_json(decode(read_bytes(path), path), str(path))
    try:
        found = [(family, one) for family, sets in content.items() for one in sets]
        for _, one in found:
            if one.get("sampling strategy", "full") != "full":
                raise DataError(
                    f"{path}: {one['dataset name']!r} has the sampling strategy {one['sampling strategy']!r}; here "
                    f"all rows are read: write full, and cut with max_train_samples"
                )
        return [(family, str(one["dataset name"])) for family, one in found]
    except (AttributeError, KeyError, TypeError):
        raise DataError(f'{path} must hold {{"family": [{{"dataset name": ...}}]}}') from None


def check_metric(name: str) -> str:
    """Return the id of a metric of answers, for a validator.

    Raises:
        ValueError: there is none of that name; the message says which was meant.
    """
    try:
        return answer_metric(name).id
    except ConfigError as error:
        raise ValueError(str(error)) from None
