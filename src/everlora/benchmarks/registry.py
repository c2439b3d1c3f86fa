"""Names of benchmarks, and the one door to all of them: `open_stream`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everlora.benchmarks import standard as table
from everlora.benchmarks import superni, trace
from everlora.benchmarks.orders import ALIASES, number_of
from everlora.benchmarks.vision import class_incremental
from everlora.benchmarks.vision_hub import VISION
from everlora.core.errors import ConfigError, DataError, nearest
from everlora.data.files import stream_from_yaml
from everlora.data.own import is_folder, stream_from_folder
from everlora.data.rows import is_data_file
from everlora.data.task import TaskStream

Modality = Literal["text", "image"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkInfo:
    """What there is to know about a benchmark before its data are opened.

    Attributes:
        name: as `open_stream` takes it.
        title: one line for people.
        orders: the task orders by number; empty when there is only one.
        tasks: the names of the tasks in the first order (of the text tasks, if there are pictures as well).
        modality: the kinds of input it offers.
        needs_data: whether rows come from a folder or the hub; False when they are made on the spot.
        aliases: other papers' and peers' numbers of the orders.
        metric: how answers are scored; "per task" where tasks differ.
    """

    name: str
    title: str
    orders: Mapping[int, tuple[str, ...]] = field(default_factory=dict, hash=False)
    tasks: tuple[str, ...] = ()
    modality: tuple[Modality, ...] = ("text",)
    needs_data: bool = True
    aliases: Mapping[str, int] = field(default_factory=dict, hash=False)
    metric: str = "exact_match"


TITLES = {
    "standard": "Standard CL benchmark: four topic and sentiment tasks, orders 1 to 3",
    "long": "Long sequence: 15 classification tasks, orders 4 to 6",
    "trace": "TRACE: eight tasks in three languages, each with its own metric, order 7",
    "superni": "Super-NaturalInstructions: 15 tasks, free answers, SAPT's orders",
}
ORDERS: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    **table.ORDERS,
    "trace": trace.ORDERS,
    "superni": superni.ORDERS,
}
METRICS = {"trace": "per task", "superni": superni.METRIC}


def benchmarks() -> list[BenchmarkInfo]:
    """List the benchmarks, the one that needs no data first."""
    from everlora.benchmarks.synthetic import TASKS

    made = BenchmarkInfo(
        name="builtin",
        tasks=tuple(TASKS),
        title="Small tasks made on the spot, without any download",
        modality=("text", "image"),
        needs_data=False,
    )
    loaded = [
        BenchmarkInfo(
            name=name,
            title=TITLES[name],
            orders=orders,
            tasks=next(iter(orders.values())),
            aliases=ALIASES.get(name, {}),
            metric=METRICS.get(name, "exact_match"),
        )
        for name, orders in ORDERS.items()
    ]
    pictures = [
        BenchmarkInfo(
            name=name,
            title=cut.title,
            orders=cut.orders if cut.permuted else {},
            tasks=cut.orders[1],
            modality=("image",),
            needs_data=not cut.embedded,
        )
        for name, cut in VISION.items()
    ]
    return [made, *loaded, *pictures]


def open_stream(
    name: str | Path,
    *,
    order: int | str | None = None,
    data_dir: Path | None = None,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    modality: Modality | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
) -> TaskStream:
    """Open a benchmark by name, or the stream that a YAML file describes.

    Args:
        name: a name of `benchmarks` (case, dashes and underscores do not matter), a path ending in .yaml or .yml,
            or the path of a folder of tasks (``./mine``).
        order: the number of the task order, or another paper's name for it (``sapt-4``); by default the first.
        data_dir: where the benchmark's files are; without it they come from the hub.
        tasks: which tasks, in which order; by default all of them.
        seed: seed of generated data; it does not touch data that are read.
        modality: text or image; by default what the benchmark has, text where it has both.
        max_train_samples: take at most so many training rows of each task; generated tasks make that many.
        max_eval_samples: take at most so many dev and as many test rows of each task; generated tasks alike.

    Raises:
        ConfigError: there is no such benchmark, order or modality, or a size is below one.
        DataError: a task is unknown, or the data cannot be used.
    """
    _check_wishes(tasks, max_train_samples=max_train_samples, max_eval_samples=max_eval_samples)
    if is_own(name):
        _refuse(str(name), order=order, data_dir=data_dir)
        read = stream_from_folder if is_folder(name) else stream_from_yaml
        return read(Path(name), tasks).take(max_train_samples, max_eval_samples)
    info = find_benchmark(str(name))
    modality = modality or info.modality[0]
    if modality not in info.modality:
        raise ConfigError(f"{info.name} has no {modality} tasks; it offers: {', '.join(info.modality)}")
    if info.name == "builtin":
        _refuse(info.name, order=order, data_dir=data_dir)
        return _builtin(modality, seed, tasks, max_train_samples, max_eval_samples)
    number = None if order is None else number_of(info.name, order)
    stream = _loaded(info, number, data_dir, tasks, (max_train_samples, max_eval_samples))
    return stream.take(max_train_samples, max_eval_samples)


def is_own(name: str | Path) -> bool:
    """Whether a benchmark is a user's own: a YAML file, or a folder that is given by its path."""
    return Path(name).suffix.lower() in (".yaml", ".yml") or is_folder(name)


def find_benchmark(name: str) -> BenchmarkInfo:
    """Look a benchmark up, forgiving case, dashes and underscores.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {_plain(info.name): info for info in benchmarks()}
    if _plain(name) not in known:
        if is_data_file(name):
            raise ConfigError(f"{name} is one file of rows; a stream of your own is a YAML file that names such files")
        if len(Path(name).parts) > 1:
            raise ConfigError(f"{name} does not exist; give the path of a YAML file or folder, or a benchmark's name")
        raise ConfigError(f"unknown benchmark {name!r}{nearest(name, [info.name for info in known.values()])}")
    return known[_plain(name)]


def order_number(benchmark: str, order: str) -> int:
    """The number of an order given by another paper's name for it.

    Raises:
        ConfigError: there is no such benchmark or order.
    """
    if is_own(benchmark):
        raise ConfigError(f"{benchmark} has a single order; leave order out, or reorder with tasks")
    return number_of(find_benchmark(benchmark).name, order)


def settled_order(settings: Mapping[str, Any]) -> dict[str, int]:
    """The entry ``order`` of a run's settings as a number, if it is there and is a text.

    Raises:
        ConfigError: there is no such benchmark or order.
    """
    order = settings.get("order")
    return {"order": order_number(str(settings.get("benchmark", "builtin")), order)} if isinstance(order, str) else {}


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").strip()


def _check_wishes(tasks: Sequence[str] | None, **sizes: int | None) -> None:
    for option, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"{option} must be at least 1, found {size}")
    if isinstance(tasks, str):
        raise ConfigError(f"tasks must be a list of names, not one string; write [{tasks!r}]")
    if tasks is not None and not tasks:
        raise ConfigError("tasks is an empty list; name at least one task, or leave it out for all")


def _refuse(name: str, *, order: int | str | None, data_dir: Path | None) -> None:
    if order is not None:
        raise ConfigError(f"{name} has a single order; leave order out, or reorder with tasks")
    if data_dir is not None:
        raise ConfigError(f"{name} takes no data folder; leave data_dir out")


def _loaded(
    info: BenchmarkInfo,
    order: int | None,
    data_dir: Path | None,
    tasks: Sequence[str] | None,
    sizes: tuple[int | None, int | None],
) -> TaskStream:
    orders = info.orders or {1: info.tasks}
    number = next(iter(orders)) if order is None else order
    check_order(info, number)
    for task in tasks or ():
        if task not in orders[number]:
            raise DataError(f"{info.name} has no task {task!r}{nearest(task, orders[number])}")
    stream = _read(info.name, number, None if data_dir is None else Path(data_dir), tasks or orders[number], sizes)
    return replace(stream, note=f"order {number}. {stream.note}".strip() if tasks is None else stream.note)


def check_order(info: BenchmarkInfo, number: int) -> None:
    """Refuse a number that is none of the benchmark's orders.

    Raises:
        ConfigError: it is not.
    """
    orders = info.orders or {1: info.tasks}
    if number not in orders:
        others = [f"{o} is of {other.name!r}" for other in benchmarks() for o in other.orders if o == number]
        hint = f" ({others[0]})" if others else ""
        raise ConfigError(f"{info.name} has no order {number}; orders: {', '.join(map(str, orders))}{hint}")


def _read(
    name: str, order: int, data_dir: Path | None, tasks: Sequence[str], sizes: tuple[int | None, int | None]
) -> TaskStream:
    if name in VISION:
        cut = VISION[name]
        if data_dir is not None and not cut.local:
            raise ConfigError(f"{name} takes no data folder; leave data_dir out")
        train, evaluate = sizes
        return class_incremental(
            name, cut, order=order, tasks=tasks, data_dir=data_dir, train=train, evaluate=evaluate
        )
    if name == "trace":
        return trace.trace(tasks, data_dir=data_dir)
    if name == "superni":
        return superni.superni(tasks, data_dir=data_dir)
    return table.standard(tasks, name=name, data_dir=data_dir)


def _builtin(
    modality: Modality, seed: int, tasks: Sequence[str] | None, train: int | None, evaluate: int | None
) -> TaskStream:
    from everlora.benchmarks.synthetic import builtin, builtin_images

    make = builtin_images if modality == "image" else builtin
    # Answering costs more than learning on a small machine: 50 rows a task unless more are asked for.
    rows = evaluate or 50
    sizes = {} if train is None else {"train": train}
    return make(seed=seed, tasks=tasks, dev=rows, test=rows, **sizes)
