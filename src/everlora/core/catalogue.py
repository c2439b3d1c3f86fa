"""What is known of a method without running it: the rows of the table of methods, and the whole card of one."""

from __future__ import annotations

import inspect
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from everlora.core.expressions import parse, split_expression
from everlora.core.registry import FAMILIES, METHODS, Entry, entries, entry


def listing() -> list[dict[str, Any]]:
    """A row per registered method, by name."""
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
    """All that is known of what ``expression`` names.

    Returns:
        ``name``, ``group``, ``replay``, ``adapter``, ``learning_rate``, ``families`` and ``parts`` (role, part,
        settings) of the whole; and under ``terms``, for each method that is joined, its row of the table, its
        ``page``, and ``options`` with name, ``kind``, ``default`` and ``source``: what the page says of the default,
        if it does.

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
    page = known.doc()
    kinds = get_type_hints(known.build, include_extras=True)
    said = f"{page}\n\n{inspect.getdoc(known.build) or ''}"
    options = [
        {
            "name": name,
            "kind": kind_of(kinds.get(name, Any)),
            "default": default,
            "source": source(name, default, said),
        }
        for name, default in known.options().items()
    ]
    return {**_row(known), "page": page, "options": options}


def _parts(described: dict[str, Any]) -> list[dict[str, Any]]:
    """The filled roles of a composition, one entry per part."""
    found = []
    for role, filled in described.items():
        for part in filled if isinstance(filled, list) else [filled]:
            if isinstance(part, dict) and "part" in part:
                settings = {key: value for key, value in part.items() if key != "part"}
                found.append({"role": role, "part": part["part"], "settings": settings})
    return found


def kind_of(kind: Any) -> str:
    """What may be given for an option, in words: ``raw | rms | max``, ``float | auto``, ``int | none``."""
    if get_origin(kind) is Annotated:
        return kind_of(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(kind_of(one) for one in get_args(kind))
    if kind is type(None):
        return "none"
    return "yes | no" if kind is bool else str(getattr(kind, "__name__", kind))


def source(option: str, default: Any, page: str) -> str:
    """The sentence of a page that says where an option's default is from; empty if none does.

    A sentence counts if it sets the option, or the symbol that the page's table gives it, equal to the default
    (``λ₁ = 0.5: orders 1-3 of the authors' scripts``), or calls the default that (```rms`` is the default because``).
    Of a switch, or an option that is none until it is given, any sentence counts that names it (```strict`` turns``).
    One that speaks of a default goes before one that does not, a later one before an earlier; no formula counts.
    """
    written = {str(default), f"{default:g}"} if isinstance(default, float) else {str(default)}  # 2.0 stands as 2
    value = rf"(?:{'|'.join(map(re.escape, written))})(?![\w.]*\d)"
    names = "|".join(map(re.escape, [option, *_symbols(option, page)]))
    says = rf"(?<!\w)(?:{names})\s*=\s*{value}" + (rf"|``{value}`` is the default" if isinstance(default, str) else "")
    if default is None or isinstance(default, bool):
        says = rf"``{re.escape(option)}(?:=[^`]*)?``"
    prose = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    # A semicolon ends a sentence, but for one in brackets.
    ends = r"(?<=\.)\s+|(?<=;)\s+(?![^()]*\))|\n\s*\n|\n(?=- )"
    sentences = [" ".join(sentence.removeprefix("- ").split()) for sentence in re.split(ends, prose)]
    found = [sentence.rstrip(";") for sentence in sentences if re.search(says, sentence)]
    return max(reversed(found), key=lambda s: "default" in s.lower(), default="")


def _symbols(option: str, page: str) -> list[str]:
    """The symbols that stand for an option in a page's table, whose lines are ``λ₁, λ₂   lam, norm_lam``."""
    for line in page.splitlines():
        columns = re.split(r"\s{3,}", line.strip())
        if not line.startswith("    ") or len(columns) < 2:
            continue
        symbols = columns[0].split(", ")
        places = [re.split(r"[ (]", place)[0] for place in columns[1].split(", ")]
        if option in places and places.index(option) < len(symbols):
            return [symbols[places.index(option)]]
    return []


def families_in_words(families: list[str] | tuple[str, ...]) -> str:
    """``all``, or the names."""
    return "all" if set(families) == set(FAMILIES) else ", ".join(families)
