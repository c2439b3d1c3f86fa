"""Describes benchmarks as data: what is known of one, and of its tasks, before any row is read.

    from everlora import benchmark
    from everlora.benchmarks import load_known

    @benchmark("my-three", title="Three tasks in an order of my own", orders={1: "yahoo dbpedia agnews"})
    def my_three(request):
        return load_known(request)

The same facts can stand in a YAML file of these keys, see `everlora.benchmarks.facts`, which also has the
decorator. A task is *defined* by the benchmark that has it under ``tasks``; any benchmark may name it in an order.
Nothing in this file imports torch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everlora.core.errors import ConfigError, nearest
from everlora.core.registry import Registry

DEFAULT_METRIC = "exact_match"
"""How the answers to a task are scored that names no metric."""
Modality = Literal["text", "image"]


LoaderFacts = Mapping[str, object]
"""What a benchmark says for its loader alone, by keys that only this loader knows."""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """Holds what is known of a task before its rows are read.

    Attributes:
        name: its name.
        labels: the closed set of answers, in order; empty for free text, and where the rows say.
        instruction: one sentence that tells a model what to do.
        metric: how answers are scored.
        source, licence: where the rows are from, and on what terms.
        published: number of training and test rows as published; None where nobody has counted them.
        modality: text or image.
        hub: where the rows lie on the Hugging Face hub, as the benchmark's loader reads it; empty if nowhere.
    """

    name: str
    labels: tuple[str, ...] = ()
    instruction: str = ""
    metric: str = DEFAULT_METRIC
    source: str = ""
    licence: str = ""
    published: tuple[int | None, int | None] | None = None
    modality: Modality = "text"
    hub: LoaderFacts = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Tells a loader which tasks are wanted, and from where.

    Attributes:
        benchmark: the benchmark.
        tasks: the tasks, in the order wanted.
        order: the number of the task order that they are from.
        data_dir: the folder of the rows; None where none was named.
        seed: seed of rows that are generated.
        train: so many training rows of each task are enough; None for all. The result is cut to that in any case.
        evaluate: so many dev and test rows of each task are enough.
    """

    benchmark: Benchmark
    tasks: tuple[TaskInfo, ...]
    order: int = 1
    data_dir: Path | None = None
    seed: int = 0
    train: int | None = None
    evaluate: int | None = None


Loader = Callable[[Request], Iterable[Any]]
"""Reads the rows of the tasks of a request; returns an `everlora.Task` for each, in order."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Describes a benchmark as the registry knows it.

    Attributes:
        name: as `everlora.open_stream` takes it.
        title: one line for people.
        orders: the task orders by number; empty where the order is that of the definitions.
        defined: the tasks that this benchmark defines, by name.
        aliases: other papers' names of the orders.
        metric: how all its tasks are scored, whatever their definitions say; empty to leave that to them.
        defaults: what holds of its tasks that have no facts of their own.
        rows_at_hand: whether the rows are made on the spot or come with a package, so that nothing is fetched.
        takes_folder: whether a data folder can be given.
        classes: number of classes that its tasks share out evenly, if they do.
        prompt_limit: length in tokens to which its authors cut a prompt, if they say.
        rows: how its folders are written, if in a way that `everlora.data.folders` knows (``o-lora``, ``superni`` or
            ``trace``): what is known of its tasks then serves folders of one's own, too.
        options: what only its loader reads.
        loader: reads the rows, or names the function that does (``module:function``); without one, the benchmarks
            that define the tasks read them.
    """

    name: str
    title: str
    orders: Mapping[int, tuple[str, ...]] = field(default_factory=dict, hash=False)
    defined: Mapping[str, TaskInfo] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, int] = field(default_factory=dict, hash=False)
    metric: str = ""
    defaults: TaskInfo = TaskInfo(name="")
    rows_at_hand: bool = False
    takes_folder: bool = True
    classes: int | None = None
    prompt_limit: int | None = None
    rows: str = ""
    options: LoaderFacts = field(default_factory=dict, hash=False)
    loader: Loader | str | None = None

    @property
    def modality(self) -> tuple[Modality, ...]:
        """Return the kinds of input that it offers, the usual one first."""
        names = next(iter(self.orders.values()), tuple(self.defined))
        return tuple(dict.fromkeys(self.task(name).modality for name in names))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks of its first order; without orders, of all that have its usual modality."""
        if self.orders:
            return next(iter(self.orders.values()))
        return self.tasks_of(self.modality[0])

    def tasks_of(self, modality: Modality) -> tuple[str, ...]:
        """Return the names of the defined tasks that have a modality."""
        return tuple(name for name, task in self.defined.items() if task.modality == modality)

    @property
    def needs_data(self) -> bool:
        """Return whether rows come from a folder or the hub; False when they are made on the spot."""
        if self.loader is not None or self.rows_at_hand:
            return not self.rows_at_hand
        return any(owner(name).needs_data for name in self.tasks)

    @property
    def scoring(self) -> str:
        """Return how its answers are scored; "per task" where tasks differ."""
        found = {self.task(name).metric for name in self.tasks}
        return found.pop() if len(found) == 1 else "per task"

    def task(self, name: str) -> TaskInfo:
        """Return what is known of one of its tasks, wherever that is defined.

        Raises:
            ConfigError: nobody defines it, or several benchmarks do.
        """
        known = self.defined.get(name)
        if known is None:
            if self.loader is not None and not defining(name) and not self._stated:
                known = replace(self.defaults, name=name)  # a task without facts, which its loader knows
            else:
                known = owner(name).defined[name]
        return replace(known, metric=self.metric) if self.metric else known

    @property
    def _stated(self) -> bool:
        """Return whether its tasks have facts, here or elsewhere: then one without any is a slip of the pen."""
        return bool(self.defined) or any(defining(name) for names in self.orders.values() for name in names)

    def order(self, order: int | str | None) -> int:
        """Return the number of an order, given by number or by another paper's name for it; None for the first.

        Raises:
            ConfigError: there is no such order.
        """
        orders = self.orders or {1: ()}
        if order is None:
            return next(iter(orders))
        if isinstance(order, str) and not order.isdecimal():
            plain = {_plain(alias): number for alias, number in self.aliases.items()}
            if _plain(order) not in plain:
                hint = nearest(order, self.aliases) if self.aliases else "; give a number"
                raise ConfigError(f"{self.name} has no order {order!r}{hint}")
            return plain[_plain(order)]
        number = int(order)
        if number not in orders:
            others = [f"{number} is of {one.name!r}" for one in BENCHMARKS.all().values() if number in one.orders]
            hint = f" ({others[0]})" if others else ""
            raise ConfigError(f"{self.name} has no order {number}; orders: {', '.join(map(str, orders))}{hint}")
        return number

    def load(self, request: Request) -> Iterable[Any]:
        """Let the loader read the rows of a request.

        Raises:
            ConfigError: there is none.
        """
        loader = self.loader
        if isinstance(loader, str):
            module, _, function = loader.partition(":")
            loader = getattr(importlib.import_module(module), function)
        if loader is None:
            raise ConfigError(f"{self.name} has no loader of its own; its tasks are read by those who define them")
        assert not isinstance(loader, str)
        return loader(request)


def _plain(alias: str) -> str:
    """Normalise the name of an order: DATA's ``order_6`` is ``data-6`` as well as ``data-order_6``."""
    return re.sub(r"[^a-z0-9]", "", alias.lower().replace("order", ""))


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", own="everlora.benchmarks.packaged")
"""All benchmarks."""


def defining(task: str) -> list[Benchmark]:
    """Return the benchmarks that define a task of this name."""
    return [known for known in BENCHMARKS.all().values() if task in known.defined]


def written_as(rows: str) -> Benchmark | None:
    """Return the benchmark whose folders are written in a way, if there is one."""
    return next((known for known in BENCHMARKS.all().values() if known.rows == rows), None)


def owner(task: str) -> Benchmark:
    """Return the one benchmark that defines a task: everlora's own first, so that no plug-in changes what is known.

    Raises:
        ConfigError: there is none, or several plug-ins define it.
    """
    found = defining(task)
    if not found:
        known = [name for one in BENCHMARKS.all().values() for name in one.defined]
        raise ConfigError(f"no benchmark defines the task {task!r}{nearest(task, known)}")
    plugged = BENCHMARKS.from_outside()
    first = [one for one in found if one.name not in plugged] or found
    if len(first) > 1:
        named = ", ".join(one.name for one in first)
        raise ConfigError(f"several benchmarks define a task {task!r}: {named}; define it under tasks of your own")
    return first[0]
