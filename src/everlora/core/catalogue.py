"""Makes the table of methods, and the card of one, from what the methods declare."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from everlora.core.defaults import defaults
from everlora.core.expressions import parse, split_expression
from everlora.core.registry import FAMILIES, METHODS, Entry, entries, entry


def listing() -> list[dict[str, Any]]:
    """Return one row per registered method, sorted by name.

    >>> import everlora.methods
    >>> next(row for row in listing() if row["name"] == "ewc")["cost"]
    'a few operations per trained parameter; per task one backward pass for each of n rows'
    """
    return [_row(known) for known in entries()]


def _row(known: Entry) -> dict[str, Any]:
    built = parse(known.name)
    return {
        "name": known.name,
        "title": known.title,
        "paper": known.paper,
        "aliases": list(known.aliases),
        "group": built.group,
        "adapter": built.policy,
        "stores": known.stores,
        "cost": known.cost,
        "replay": known.replay,
        "task_id_at_inference": built.task_id_at_inference,
        "families": list(known.families),
        "rows": list(known.tabled),
        "plugin": built.plugin,
        "origin": METHODS.origin(known.name),
        "options": known.options(),
    }


def card(expression: str) -> dict[str, Any]:
    """Return everything that is declared of the method that ``expression`` names.

    >>> import everlora.methods
    >>> options = {option["name"]: option for option in card("o-lora")["terms"][0]["options"]}
    >>> options["lam"]["default"], options["lam"]["source"]
    (0.5, "λ₁ = 0.5 is that of the authors' scripts for orders 1 to 3.")

    Returns:
        ``name``, ``group``, ``replay``, ``adapter``, ``learning_rate``, ``families`` and ``parts`` (role, part,
        settings) of the composition; and under ``terms``, for each method that is joined, its row of the table, its
        ``page``, and ``options`` with ``name``, ``kind``, ``default``, ``source`` (where the default comes from; empty
        if that is not declared) and ``ours`` (whether it is this library's choice).

    Raises:
        ConfigError: unknown method or option, or parts that exclude one another.
    """
    built = parse(expression)
    known = list(dict.fromkeys(name for name, _ in split_expression(expression)))
    return {
        "name": built.name,
        "group": built.group,
        "replay": built.sees_again,
        "adapter": built.policy,
        "learning_rate": built.adapter.learning_rate,
        "task_id_at_inference": built.task_id_at_inference,
        "families": list(built.families),
        "parts": _parts(built.describe()),
        "terms": [_card(entry(name)) for name in known],
    }


def _card(known: Entry) -> dict[str, Any]:
    kinds, notes = get_type_hints(known.build, include_extras=True), defaults(known.build)
    options = [
        {
            "name": name,
            "kind": kind_of(kinds.get(name, Any)),
            "default": default,
            "source": notes[name].source if name in notes else "",
            "ours": notes[name].ours if name in notes else None,
        }
        for name, default in known.options().items()
    ]
    return {**_row(known), "page": known.doc(), "options": options}


def _parts(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the filled roles of a composition that `Method.describe` has described, one entry per part."""
    found = []
    for role, filled in described.items():
        for part in filled if isinstance(filled, list) else [filled]:
            if isinstance(part, dict) and "part" in part:
                settings = {key: value for key, value in part.items() if key != "part"}
                found.append({"role": role, "part": part["part"], "settings": settings})
    return found


def kind_of(kind: Any) -> str:
    """Return what may be given for an option, in words.

    >>> from typing import Literal
    >>> kind_of(Literal["raw", "rms"]), kind_of(int | None), kind_of(bool)
    ('raw | rms', 'int | none', 'yes | no')
    """
    if get_origin(kind) is Annotated:
        return kind_of(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(kind_of(one) for one in get_args(kind))
    if kind is type(None):
        return "none"
    return "yes | no" if kind is bool else str(getattr(kind, "__name__", kind))


def families_in_words(families: list[str] | tuple[str, ...]) -> str:
    """Return ``all`` if a method suits every model family, else the names of those that it suits.

    >>> families_in_words(["decoder", "encoder"])
    'decoder, encoder'
    """
    return "all" if set(families) == set(FAMILIES) else ", ".join(families)
