"""Opens benchmarks by name, and the streams that a user's own files describe: `open_stream` is the one door to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from everlora.benchmarks.read import is_benchmark_file, read_benchmark
from everlora.core.benchmark import BENCHMARKS, Benchmark, Modality, Request, defining, owner
from everlora.core.errors import ConfigError, DataError, nearest
from everlora.data.rows import is_data_file, is_folder
from everlora.data.stream import TaskStream, left_out_note
from everlora.data.task import Task

YAML = (".yaml", ".yml")


def benchmarks() -> list[Benchmark]:
    """List the benchmarks, the one that needs no data first.

    >>> [known.name for known in benchmarks()][:3]
    ['builtin', 'standard', 'long']
    """
    return list(BENCHMARKS.all().values())


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
    """Open a benchmark by name, or the stream that a YAML file or a folder describes.

    Args:
        name: a name of `benchmarks` (case, dashes and underscores do not matter), a path ending in .yaml or .yml,
            or the path of a folder of tasks (``./mine``).
        order: the number of the task order, or another paper's name for it (``sapt-4``); by default the first.
        data_dir: where the benchmark's files are; without it they come from the hub.
        tasks: which tasks, in which order; by default all of them.
        seed: seed of generated data, and of the rows that a limit takes of data that are read.
        modality: text or image; by default what the benchmark has, text where it has both.
        max_train_samples: take at most so many training rows of each task; generated tasks make that many.
        max_eval_samples: take at most so many dev and as many test rows of each task; generated tasks alike.

    Raises:
        ConfigError: there is no such benchmark, order or modality, or a size is below one.
        DataError: a task is unknown, or the data cannot be used.

    >>> stream = open_stream("builtin", tasks=["news", "reviews"], max_train_samples=8, max_eval_samples=4)
    >>> [(task.name, len(task.train), len(task.test)) for task in stream]
    [('news', 8, 4), ('reviews', 8, 4)]
    """
    _check_wishes(tasks, max_train_samples=max_train_samples, max_eval_samples=max_eval_samples)
    if is_own(name):
        _refuse_order(str(name), order)
        _refuse_folder(str(name), data_dir)
        return _own(Path(name), tasks).take(max_train_samples, max_eval_samples, seed=seed)
    known = find_benchmark(str(name))
    modality = modality or known.modality[0]
    if modality not in known.modality:
        raise ConfigError(f"{known.name} has no {modality} tasks; it offers: {', '.join(known.modality)}")
    if not known.orders:
        _refuse_order(known.name, order)
    number = known.order(order)
    names = known.orders[number] if known.orders else known.tasks_of(modality)
    _check_tasks(known.name, tasks, names)
    request = Request(
        benchmark=known,
        tasks=tuple(known.task(task) for task in tasks or names),
        order=number,
        data_dir=None if data_dir is None else Path(data_dir),
        seed=seed,
        train=max_train_samples,
        evaluate=max_eval_samples,
    )
    return _loaded(request, named=tasks is None).take(max_train_samples, max_eval_samples, seed=seed)


def check_names(name: str, order: int | str | None = None, tasks: Sequence[str] | None = None) -> None:
    """Refuse a benchmark, an order or a task that nobody knows; no row is read, nor a list of tasks of one's own.

    Raises:
        ConfigError: there is no such benchmark or order.
        DataError: a task is unknown, whatever it is made of.
    """
    if is_own(name):
        return
    known = find_benchmark(name)
    number = known.order(order)
    kinds = [known.orders[number]] if known.orders else [known.tasks_of(kind) for kind in known.modality]
    _check_tasks(known.name, tasks, [task for kind in kinds for task in kind])


def _check_tasks(benchmark: str, tasks: Sequence[str] | None, names: Sequence[str]) -> None:
    for task in tasks or ():
        if task not in names:
            raise DataError(f"{benchmark} has no task {task!r}{nearest(task, names)}")


def load_known(request: Request) -> list[Task]:
    """Load tasks that other benchmarks define, each as the benchmark that defines it reads it.

    >>> known = BENCHMARKS.get("builtin")
    >>> tasks = load_known(Request(benchmark=known, tasks=(known.task("news"),), train=8, evaluate=4))
    >>> [(task.name, len(task.train), len(task.test)) for task in tasks]
    [('news', 8, 4)]

    Raises:
        ConfigError: nobody defines a task.
        DataError: the data cannot be used.
    """
    by_owner: dict[str, list[str]] = {}
    for task in request.tasks:
        by_owner.setdefault(owner(task.name).name, []).append(task.name)
    found: dict[str, Task] = {}
    for name, tasks in by_owner.items():
        known = BENCHMARKS.get(name)
        folder = request.data_dir if known.takes_folder else None
        wanted = replace(
            request, benchmark=known, tasks=tuple(known.task(task) for task in tasks), order=1, data_dir=folder
        )
        found.update((task.name, replace(task, prompt_limit=known.prompt_limit)) for task in known.load(wanted))
    return [found[task.name] for task in request.tasks]


def is_own(name: str | Path) -> bool:
    """Return whether a name is a user's own: a YAML file that lists tasks and their files, or a folder of tasks."""
    path = Path(name)
    return (path.suffix.lower() in YAML and not is_benchmark_file(path)) or is_folder(name)


def is_yaml(name: str) -> bool:
    """Return whether a name is the path of a YAML file that is there."""
    path = Path(name)
    return path.suffix.lower() in YAML and path.is_file()


def find_benchmark(name: str) -> Benchmark:
    """Look a benchmark up by name, forgiving case, dashes and underscores, or read the YAML file of one.

    Raises:
        ConfigError: there is none of that name.

    >>> find_benchmark("TRACE").orders[7][0]
    'C-STANCE'
    """
    path = Path(name)
    if is_yaml(name):
        return read_benchmark(path)
    known = BENCHMARKS.find(name)
    if known is None and is_data_file(name):
        raise ConfigError(f"{name} is one file of rows; a stream of your own is a YAML file that names such files")
    if known is None and len(path.parts) > 1:
        raise ConfigError(f"{name} does not exist; give the path of a YAML file or folder, or a benchmark's name")
    return known or BENCHMARKS.get(name)


def owners(name: str) -> list[str]:
    """Return the benchmarks that define tasks which this one only names; none for tasks of a user's own.

    >>> owners("standard")
    ['long']
    """
    if is_own(name):
        return []
    known = find_benchmark(name)
    named = {task for tasks in known.orders.values() for task in tasks} - known.defined.keys()
    return sorted({owner(task).name for task in named if defining(task)})


def order_number(benchmark: str, order: str) -> int:
    """Return the number of an order given by another paper's name for it.

    Raises:
        ConfigError: there is no such benchmark or order.

    >>> order_number("long", "sapt-4")
    6
    """
    if is_own(benchmark):
        _refuse_order(benchmark, order)
    return find_benchmark(benchmark).order(order)


def _own(path: Path, tasks: Sequence[str] | None) -> TaskStream:
    from everlora.data.files import stream_from_yaml
    from everlora.data.own import stream_from_folder

    return (stream_from_folder if is_folder(path) else stream_from_yaml)(path, tasks)


def _loaded(request: Request, *, named: bool) -> TaskStream:
    """Let the loader read the rows, check that it returned what was wanted, and write down what was left out."""
    known = request.benchmark
    if not (known.takes_folder if known.loader else any(owner(task.name).takes_folder for task in request.tasks)):
        _refuse_folder(known.name, request.data_dir)
    loaded = tuple(load_known(request) if known.loader is None else known.load(request))
    found, wanted = [getattr(task, "name", task) for task in loaded], [task.name for task in request.tasks]
    if found != wanted or not all(isinstance(task, Task) for task in loaded):
        raise DataError(f"the loader of {known.name} must return the tasks {', '.join(wanted)}; it returned {found}")
    # A benchmark of known tasks may score them all in one way, as the paper that it is from does.
    if known.metric:
        loaded = tuple(replace(task, metric=known.metric) for task in loaded)
    if known.prompt_limit:
        loaded = tuple(replace(task, prompt_limit=known.prompt_limit) for task in loaded)
    note = left_out_note(loaded)
    if named and known.orders:
        note = f"order {request.order}. {note}".strip()
    return TaskStream(name=known.name, tasks=loaded, note=note)


def _check_wishes(tasks: Sequence[str] | None, **sizes: int | None) -> None:
    for option, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"{option} must be at least 1, found {size}")
    if isinstance(tasks, str):
        raise ConfigError(f"tasks must be a list of names, not one string; write [{tasks!r}]")
    if tasks is not None and not tasks:
        raise ConfigError("tasks is an empty list; name at least one task, or leave it out for all")


def _refuse_order(name: str, order: int | str | None) -> None:
    if order is not None:
        raise ConfigError(f"{name} has a single order; leave order out, or reorder with tasks")


def _refuse_folder(name: str, data_dir: Path | None) -> None:
    if data_dir is not None:
        raise ConfigError(f"{name} takes no data folder; leave data_dir out")
