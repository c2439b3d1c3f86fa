"""Defines the commands that tell what there is: methods, benchmarks, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import completion
from everlora.cli.common import Json, Plugin, say
from everlora.report.forms import GROUPS

if TYPE_CHECKING:
    from everlora.core.plain import JsonObject
    from everlora.methods.cards import MethodCard

WIDE_ENOUGH = 120
WIDE = {
    "method": "{name}",
    "what it does": "{title}",
    "adapter": "{adapter}",
    "stores": "{stores}",
    "costs per step": "{cost}",
    "families": "{families}",
}
NARROW = {
    "method": "{name}",
    "what it does": "{title}\n{adapter}; families: {families}",
    "stores; costs per step": "{stores};\n{cost}",
}


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A method, or a+b: print its whole card.", autocompletion=completion.methods
        ),
    ] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """List the methods, or print the card of one: formula, options, parts, storage, cost."""
    from everlora.cli import tables
    from everlora.methods.cards import card, families_in_words, listing

    if name is not None:
        found = card(name)
        if as_json:
            say(json.dumps(_card_as_json(found)))
        else:
            _print_card(found)
        return
    rows = listing()
    if as_json:
        say(json.dumps([asdict(row) for row in rows]))
        return
    columns = WIDE if tables.out_console.width >= WIDE_ENOUGH else NARROW
    for group, title in GROUPS.items():
        shown = [
            {
                **asdict(row),
                "adapter": row.adapter.partition(":")[0],
                "families": families_in_words(row.families),
            }
            for row in rows
            if row.group == group
        ]
        _table(title, columns, ([column.format_map(row) for column in columns.values()] for row in shown))
    say("o, i, r: outputs, inputs and rank of an adapted matrix")
    say("everlora methods NAME prints the whole card")


def _card_as_json(found: MethodCard) -> JsonObject:
    """Return a card as ``--json`` prints it: what is known of a member stands in one object with its row."""
    members = [
        {**asdict(member.row), "page": member.page, "options": list(map(asdict, member.options))}
        for member in found.members
    ]
    return {**asdict(found), "members": members}


def _print_card(found: MethodCard) -> None:
    from everlora.methods.cards import families_in_words

    for member in found.members:
        row = member.row
        aliases = f" (also {', '.join(row.aliases)})" if row.aliases else ""
        say(f"{row.name}{aliases}\n{row.title}\n{row.paper}\n\n{member.page}\n")
        if row.origin:
            say("from " + ", ".join(f"{key} {value}" for key, value in row.origin.items()) + "\n")
        if member.options:
            options = ([one.name, one.kind, text(one.default), one.source or "–"] for one in member.options)
            _table(f"options of {row.name}", ("option", "values", "default", "where the default is from"), options)
    composed = [
        ("group", found.group),
        ("adapter", found.adapter),
        *((f"stores ({member.row.name})", member.row.stores) for member in found.members),
        *((f"extra cost per step ({member.row.name})", member.row.cost) for member in found.members),
        ("replay", text(found.replay)),
        ("learning rate, if none is named", f"{found.learning_rate:g}"),
        ("task id at inference", text(found.task_id_at_inference)),
        ("families", families_in_words(found.families)),
        *((one.role, f"{one.part}({_settings(one.settings)})") for one in found.parts),
    ]
    _table(f"{found.name}, as composed", ("what", "as declared"), ([key, value] for key, value in composed))


def _settings(settings: JsonObject) -> str:
    """Return settings in one line; one with settings of its own (a strength to be found) stands in brackets."""
    return ", ".join(
        f"{key}=({_settings(value)})" if isinstance(value, dict) else f"{key}={text(value)}"
        for key, value in settings.items()
    )


def metrics(plugin: Plugin = None, as_json: Json = False) -> None:
    """List what is made of an accuracy matrix, and how answers are scored: id, formula, source."""
    from everlora.metrics import answer_metrics, matrix_metrics

    kinds: dict[str, Any] = {"of a run's matrix": matrix_metrics(), "of a task's answers": answer_metrics()}
    rows = [
        {"of": of, "id": one.id, "formula": one.formula, "source": one.source, "needs": one.needs}
        for of, known in kinds.items()
        for one in known.values()
    ]
    if as_json:
        say(json.dumps(rows))
        return
    for of in kinds:
        shown = ([r["id"], r["formula"], r["source"]] for r in rows if r["of"] == of)
        _table(of, ("id", "formula", "source"), shown)


def env(as_json: Json = False) -> None:
    """Print versions, for bug reports."""
    from everlora.models.environment import environment

    facts = environment().plain()
    if as_json:
        say(json.dumps(facts))
    else:
        from everlora.cli.tables import out_console

        out_console.print_json(json.dumps(facts))


def _table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from everlora.cli import tables

    tables.out_console.print(tables.table(title, heads, rows, unbroken=[*heads][:1]))


def text(value: Any) -> str:
    """Return a plain value as it is shown."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return "\n".join(f"{key}: {text(item)}" for key, item in value.items())
    return str(value)
