"""Lists benchmarks and shows the card of one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import completion, options
from everlora.cli.common import Json, Plugin, say

if TYPE_CHECKING:
    from everlora.benchmarks.cards import BenchmarkCard, TaskCard, TaskRows
    from everlora.core.plain import JsonObject

LABELS_SHOWN = 3
OPTIONAL = ("published", "classes", "pictures", "words", "answer_words")
"""What is known of some tasks only."""


@options.takes_settings(only=("data_dir", "order"))
def benchmarks(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Benchmark, YAML file or folder: print its card.",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    *,
    plugin: Plugin = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """List the benchmarks, or show the card of one: tasks, sizes, labels, metric, source, terms, lengths.

    Sizes and lengths are counted where the data are at hand.
    """
    from everlora.benchmarks.cards import card
    from everlora.core.errors import ConfigError

    if name is not None:
        facts = card(name, **settings)
        if as_json:
            say(json.dumps(_as_json(facts)))
        else:
            _show_card(facts)
        return
    if any(value is not None for value in settings.values()):
        raise ConfigError("--data-dir and --order belong to one benchmark; name it: everlora benchmarks standard")
    _list(as_json)


def _list(as_json: bool) -> None:
    from everlora.benchmarks import benchmarks as known

    if as_json:
        rows = [
            {
                "name": info.name,
                "title": info.title,
                "tasks": list(info.tasks),
                "orders": {str(number): list(names) for number, names in info.orders.items()},
                "aliases": dict(info.aliases),
                "modality": list(info.modality),
                "needs_data": info.needs_data,
                "metric": info.scoring,
            }
            for info in known()
        ]
        say(json.dumps(rows))
        return
    from everlora.cli import tables

    listed = [
        [
            info.name,
            str(len(info.tasks)),
            ", ".join(map(str, info.orders)) or "–",
            "read" if info.needs_data else "made",
            info.title,  # which wraps on a narrow terminal
        ]
        for info in known()
    ]
    heads = ("benchmark", "tasks", "orders", "data", "what it is")
    tables.out_console.print(tables.table("", heads, listed, unbroken=heads[:-1]))
    say("everlora benchmarks NAME shows one; --data-dir adds sizes and lengths")


def _as_json(facts: BenchmarkCard) -> JsonObject:
    """Return a card as ``--json`` prints it: what is not known of a task is left out."""
    left_out = ("own", "prompt_limit") if facts.own else ("own",)  # tasks of one's own have no limit as a benchmark
    plain = {key: value for key, value in asdict(facts).items() if key not in left_out}
    return {**plain, "tasks": [_task_as_json(task) for task in facts.tasks]}


def _task_as_json(task: TaskCard) -> JsonObject:
    plain = asdict(task)
    known = plain | (plain.pop("at_hand") or {})
    return {key: value for key, value in known.items() if key not in OPTIONAL or value is not None}


def _show_card(facts: BenchmarkCard) -> None:
    from everlora.cli import tables

    measured = any(task.at_hand for task in facts.tasks)
    published = not measured and any(task.published for task in facts.tasks)
    sizes = ("train/dev/test", "words in, out") if measured else ("published train/test",) * published
    rows = []
    for task in facts.tasks:
        cells = [task.name]
        if task.at_hand:
            counts = task.at_hand.rows
            cells += [f"{counts.train}/{counts.dev}/{counts.test}", _length(task.at_hand, bool(task.labels))]
        if published:
            known = (task.published.train, task.published.test) if task.published else (None, None)
            cells.append("/".join("?" if size is None else str(size) for size in known))
        rows.append([*cells, _labels(task), task.metric, "; ".join(filter(None, (task.source, task.licence)))])
    tables.show(tables.table(facts.title, ("task", *sizes, "labels", "metric", "source; licence"), rows))
    for task in facts.tasks:
        if len(task.labels) > LABELS_SHOWN:
            say(f"labels of {task.name}: {', '.join(task.labels)}")
    for number, tasks in facts.orders.items():
        also = [alias for alias, of in facts.aliases.items() if of == number]
        named = f"order {number}{' (' + ', '.join(also) + ')' if also else ''}, {facts.hashes[number]}"
        say(f"{named}: {' '.join(tasks)}")
    if facts.order_digest:
        say(f"this order of these rows: {facts.order_digest}")
    for task in facts.tasks:
        for why, count in (task.at_hand.left_out if task.at_hand else {}).items():
            say(f"left out of {task.name}: {count} rows ({why})")
    if not measured:
        say("sizes and lengths are shown of data at hand: --data-dir FOLDER")


def _length(rows: TaskRows, labelled: bool) -> str:
    words, answers = rows.words, rows.answer_words
    if words is None or answers is None:
        return str(rows.pictures)
    inputs = f"{words.mean:g}, p95 {words.p95}, max {words.max}"
    return inputs if labelled else f"{inputs}; {answers.mean:g}, p95 {answers.p95}, max {answers.max}"


def _labels(task: TaskCard) -> str:
    labels = task.labels
    if not labels:
        return f"{task.classes} classes" if task.classes is not None else "free"
    shown = ", ".join(labels[:LABELS_SHOWN])
    return shown if len(labels) <= LABELS_SHOWN else f"{len(labels)}: {shown}, …"
