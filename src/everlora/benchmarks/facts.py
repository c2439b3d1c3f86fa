"""Reads the facts of a benchmark from a YAML file or from the arguments of ``@benchmark``.

```yaml
title: Three topics in an order of my own
orders: {1: yahoo dbpedia agnews}      # numbers, each with a list of names or one text of names; or one list alone
aliases: {1: [paper-1]}                # other papers' names of the orders
metric: macro_f1                       # how all tasks are scored; left out: as each task's definition says
```

That is a whole benchmark of known tasks. One that defines tasks says more:

```yaml
loader: my_module:load                 # the function that reads the rows, see `everlora.core.benchmark.Request`
source: "a paper"                      # of all tasks that name none, as are licence, modality (text or image)
licence: CC BY 4.0
prompt_limit: 1024                     # tokens to which its authors cut a prompt
rows_at_hand: true                     # made on the spot: no folder or hub is needed
takes_folder: false                    # --data-dir is refused
classes: 100                           # that its tasks share out evenly
rows: o-lora                           # how its folders are written, if as o-lora, superni or trace
options: {}                            # what only its loader reads
tasks:                                 # a list of names will do
  tickets:
    labels: [billing, technical]
    instruction: Decide which desk should answer.
    metric: exact_match
    source: where the rows are from
    licence: on what terms
    published: [5000, 2000]            # rows of train and test as published; null where nobody has counted
    modality: text
    hub: {path: owner/name}            # where the loader finds the rows on the hub
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Required, TypedDict, TypeVar, cast, get_args

from everlora.core.benchmark import BENCHMARKS, Benchmark, Loader, LoaderFacts, Modality, TaskInfo
from everlora.core.errors import ConfigError, nearest

Names = str | Sequence[str]
"""Names of tasks: a list, or one text with blanks between them."""
F = TypeVar("F", bound=Loader)

OF_TASK = tuple(one.name for one in fields(TaskInfo) if one.name != "name")
SHARED = ("source", "licence", "modality")
"""What a benchmark may say of all its tasks at once."""
Kind = type | tuple[type, ...]
"""What a value may be an instance of."""


class BenchmarkFacts(TypedDict, total=False):
    """Holds the facts of a benchmark, once it is known that each is of its kind."""

    title: Required[str]
    orders: Mapping[int, Names] | Names | None
    tasks: Mapping[str, TaskFacts | None] | Names | None
    aliases: Mapping[int, Names] | None
    metric: str
    source: str
    licence: str
    modality: str
    rows_at_hand: bool
    takes_folder: bool
    classes: int
    prompt_limit: int
    rows: str
    options: LoaderFacts | None
    loader: Loader | str


TaskFacts = Mapping[str, object]
"""The facts of a task, before they are checked; the keys are the attributes of `everlora.core.benchmark.TaskInfo`."""
OF_BENCHMARK: dict[str, Kind] = {
    "title": str,
    "orders": (Mapping, Sequence, str),
    "tasks": (Mapping, Sequence, str),
    "aliases": Mapping,
    "metric": str,
    "source": str,
    "licence": str,
    "modality": str,
    "rows_at_hand": bool,
    "takes_folder": bool,
    "classes": int,
    "prompt_limit": int,
    "rows": str,
    "options": Mapping,
    "loader": str,
}
"""The keys of a benchmark, and what each holds."""
KINDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    Sequence: "a list",
    Mapping: "a mapping",
}


def make_benchmark(name: str, given: Mapping[str, object], *, where: str, loader: Loader | None = None) -> Benchmark:
    """Check the facts of a benchmark, and make it.

    Args:
        name: of the benchmark.
        given: its keys and values, as above.
        where: what is checked, for messages: a file, or ``benchmark 'my-three'``.
        loader: the function that reads the rows, if it is at hand.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, an order that names a task twice, or no tasks.
    """
    _check(given, OF_BENCHMARK, where)
    if not given.get("title"):
        raise ConfigError(f"{where} needs a title: one line that says what it is")
    facts = cast(BenchmarkFacts, given)
    defaults = _task("", {key: given[key] for key in SHARED if key in given}, TaskInfo(name=""), where)
    tasks = facts.get("tasks") or {}
    if not isinstance(tasks, Mapping):
        tasks = dict.fromkeys(_names(tasks, f"{where}, tasks"))
    defined = {str(task): _task(str(task), stated or {}, defaults, where) for task, stated in tasks.items()}
    orders = _orders(facts.get("orders") or {}, where)
    made = loader or facts.get("loader")
    if not orders and not defined:
        raise ConfigError(f"{where} needs orders, or tasks: which tasks are learned, and when")
    if defined and made is None:
        raise ConfigError(f"{where} defines tasks and has no loader; leave tasks out, and name known tasks in orders")
    return Benchmark(
        name=name,
        title=facts["title"],
        orders=orders,
        defined=defined,
        aliases=_aliases(facts.get("aliases") or {}, orders, where),
        metric=facts.get("metric", ""),
        defaults=defaults,
        rows_at_hand=facts.get("rows_at_hand", False),
        takes_folder=facts.get("takes_folder", True),
        classes=facts.get("classes"),
        prompt_limit=facts.get("prompt_limit"),
        rows=facts.get("rows", ""),
        options=facts.get("options") or {},
        loader=made,
    )


def benchmark(
    name: str,
    *,
    title: str,
    orders: Mapping[int, Names] | Names | None = None,
    tasks: Mapping[str, TaskFacts | None] | Names | None = None,
    aliases: Mapping[int, Sequence[str]] | None = None,
    **facts: Any,
) -> Callable[[F], F]:
    """Register the decorated function as the loader of a benchmark.

    The function takes an `everlora.core.benchmark.Request` and returns the `everlora.Task` objects that it names, in
    order. For tasks that other benchmarks define, `everlora.benchmarks.load_known` does that.

    >>> from everlora import load_known, open_stream
    >>> from everlora.core.registry import isolated
    >>> with isolated():  # forgets it again, as tests do
    ...     load = benchmark("my-two", title="Two known tasks", orders=["news", "reviews"])(load_known)
    ...     [task.name for task in open_stream("my-two", max_train_samples=4, max_eval_samples=4)]
    ['news', 'reviews']

    Args:
        name: of the benchmark.
        title: one line for people.
        orders: the task orders by number, or one order; names that are not under ``tasks`` are of known tasks.
        tasks: the tasks that this benchmark defines: their names, or by name what is known of each.
        aliases: other papers' names of the orders, by number.
        **facts: ``metric``, ``source``, ``licence``, ``modality``, ``rows_at_hand``, … as in a YAML file, see this
            module.

    Raises:
        ConfigError: the name is taken, or a fact cannot be used; raised where the function is decorated.
    """
    stated = {"title": title, "orders": orders, "tasks": tasks, "aliases": aliases, **facts}

    def register(load: F) -> F:
        given = {key: value for key, value in stated.items() if value is not None}
        made = make_benchmark(name, given, where=f"the benchmark {name!r}", loader=load)
        BENCHMARKS.add(name, made, module=load.__module__)
        return load

    return register


def _check(facts: Mapping[str, object], known: Mapping[str, Kind], where: str) -> None:
    for key, value in facts.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {str(key)!r}{nearest(str(key), known)}")
        kind = known[key]
        wanted = kind if isinstance(kind, tuple) else (kind,)
        # A text is a sequence, and True a number; neither is meant.
        slip = (isinstance(value, str) and str not in wanted) or (isinstance(value, bool) and bool not in wanted)
        if slip or not isinstance(value, wanted):
            kinds = " or ".join(KINDS[kind] for kind in wanted)
            raise ConfigError(f"{where}: {key!r} must be {kinds}, found {value!r}")


def _names(value: Any, where: str) -> tuple[str, ...]:
    names = tuple(value.split()) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: names must be text, found {name!r}; put it in quotes")
        if names.count(name) > 1:
            raise ConfigError(f"{where} names the task {name!r} twice")
    return names


def _orders(value: Any, where: str) -> dict[int, tuple[str, ...]]:
    """Return orders by number; a list alone is order 1."""
    numbered = value if isinstance(value, Mapping) else {1: value}
    found = {}
    for number, names in numbered.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise ConfigError(f"{where}: an order must have a whole number, found {number!r}")
        if not isinstance(names, str | Sequence) or not names:
            raise ConfigError(f"{where}: order {number} must be a list of tasks, found {names!r}")
        found[number] = _names(names, f"{where}, order {number}")
    return found


def _aliases(value: Mapping[Any, Any], orders: Mapping[int, Any], where: str) -> dict[str, int]:
    for number in value:
        if number not in orders:
            raise ConfigError(f"{where}: aliases of order {number!r}, and there is none")
    return {alias: number for number, names in value.items() for alias in _names(names, f"{where}, aliases")}


def _task(name: str, stated: Any, defaults: TaskInfo, where: str) -> TaskInfo:
    """Return what is known of a task, over what holds of all."""
    at = f"{where}, task {name!r}" if name else where
    if not isinstance(stated, Mapping):
        raise ConfigError(f"{at}: must hold keys and values, found {stated!r}")
    kinds: dict[str, Kind] = {**dict.fromkeys(OF_TASK, str), "labels": Sequence, "published": Sequence, "hub": Mapping}
    _check(stated, kinds, at)
    given = dict(stated)
    for label in given.get("labels", ()):
        if not isinstance(label, str):
            raise ConfigError(f"{at}: labels must be text, found {label!r}; put it in quotes")
    if "labels" in given:
        given["labels"] = tuple(given["labels"])
    if "published" in given:
        sizes = tuple(given["published"])
        if len(sizes) != 2 or not all(size is None or isinstance(size, int) for size in sizes):
            raise ConfigError(f"{at}: published must be the rows of train and of test, found {list(sizes)}")
        given["published"] = sizes
    if given.get("modality", "text") not in get_args(Modality):
        raise ConfigError(f"{at}: unknown modality {given['modality']!r}; text or image")
    return replace(defaults, name=name, **given)
