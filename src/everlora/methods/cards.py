"""Makes the table of methods, and the card of one, from what the methods declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from everlora.core.defaults import defaults
from everlora.core.description import PartDescription
from everlora.core.expressions import parse, split_expression
from everlora.core.method import Group
from everlora.core.plugins import Origin
from everlora.core.registry import FAMILIES, METHODS, Entry, entries, entry
from everlora.core.roles import Budget


@dataclass(frozen=True)
class MethodRow:
    """Holds a method's row in the table of all methods.

    Attributes:
        name, title, paper, aliases, stores, cost, replay, families: as declared, see `everlora.core.registry.Entry`.
        group: what it may use of earlier tasks, see `everlora.core.method.Method.group`.
        adapter: what is trained, in words.
        task_id_at_inference: whether answers need the task id.
        rows: the systems that it brings to tables of all systems, as expressions.
        plugin: whether it joins other methods.
        origin: of a method that is not everlora's own, where it is from.
        options: their defaults by name.
    """

    name: str
    title: str
    paper: str
    aliases: tuple[str, ...]
    group: Group
    adapter: str
    stores: str
    cost: str
    replay: bool
    task_id_at_inference: bool
    families: tuple[str, ...]
    rows: tuple[str, ...]
    plugin: bool
    origin: Origin | None
    options: Mapping[str, object]


@dataclass(frozen=True)
class OptionCard:
    """Holds what is declared of an option of a method.

    Attributes:
        name: as in an expression.
        kind: what may be given, in words.
        default: its value.
        source: where the default comes from; empty if that is not declared.
        ours: whether the default is this library's choice; None if that is not declared.
    """

    name: str
    kind: str
    default: object
    source: str
    ours: bool | None


@dataclass(frozen=True)
class MemberCard:
    """Holds one of the methods that are joined: its row of the table, its page, and its options."""

    row: MethodRow
    page: str
    options: tuple[OptionCard, ...]


@dataclass(frozen=True)
class MethodCard:
    """Holds everything that is declared of a composition.

    Attributes:
        name, group, replay, adapter, learning_rate, task_id_at_inference, families: of the whole.
        parts: what it is made of.
        members: the methods that are joined.
    """

    name: str
    group: Group
    replay: bool
    adapter: str
    learning_rate: float
    task_id_at_inference: bool
    families: tuple[str, ...]
    parts: tuple[PartDescription, ...]
    members: tuple[MemberCard, ...]


def listing() -> list[MethodRow]:
    """Return one row per registered method, sorted by name.

    >>> import everlora.methods
    >>> next(row for row in listing() if row.name == "ewc").cost
    'a few operations per trained parameter; per task one backward pass for each of n rows'
    """
    return [_row(known) for known in entries()]


def _row(known: Entry) -> MethodRow:
    built = parse(known.name)
    return MethodRow(
        name=known.name,
        title=known.title,
        paper=known.paper,
        aliases=known.aliases,
        group=built.group,
        adapter=built.policy,
        stores=known.stores,
        cost=known.cost,
        replay=known.replay,
        task_id_at_inference=built.task_id_at_inference,
        families=known.families,
        rows=known.tabled,
        plugin=built.plugin,
        origin=METHODS.origin(known.name),
        options=known.options(),
    )


def card(expression: str) -> MethodCard:
    """Return everything that is declared of the method that ``expression`` names.

    >>> import everlora.methods
    >>> options = {option.name: option for option in card("o-lora").members[0].options}
    >>> options["lam"].default, options["lam"].source
    (0.5, "λ₁ = 0.5 is that of the authors' scripts for orders 1 to 3.")

    Raises:
        ConfigError: unknown method or option, or parts that exclude one another.
    """
    built = parse(expression)
    known = list(dict.fromkeys(name for name, _ in split_expression(expression)))
    return MethodCard(
        name=built.name,
        group=built.group,
        replay=built.sees_again,
        adapter=built.policy,
        learning_rate=built.adapter.learning_rate,
        task_id_at_inference=built.task_id_at_inference,
        families=built.families,
        parts=built.describe().parts,
        members=tuple(_member(entry(name)) for name in known),
    )


def _member(known: Entry) -> MemberCard:
    kinds, notes = get_type_hints(known.build, include_extras=True), defaults(known.build)
    options = tuple(
        OptionCard(
            name=name,
            kind=kind_of(kinds.get(name, Any)),
            default=default,
            source=notes[name].source if name in notes else "",
            ours=notes[name].ours if name in notes else None,
        )
        for name, default in known.options().items()
    )
    return MemberCard(row=_row(known), page=known.doc(), options=options)


def kind_of(kind: Any) -> str:
    """Return what may be given for an option, in words.

    >>> from typing import Literal
    >>> kind_of(Literal["raw", "rms"]), kind_of(int | None), kind_of(bool)
    ('raw | rms', 'int | none', 'yes | no')
    """
    if kind is Budget:
        return "budget(nats=X, probes=N)"
    if get_origin(kind) is Annotated:
        return kind_of(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(kind_of(one) for one in get_args(kind))
    if kind is type(None):
        return "none"
    return "yes | no" if kind is bool else str(getattr(kind, "__name__", kind))


def families_in_words(families: Sequence[str]) -> str:
    """Return ``all`` if a method suits every model family, else the names of those that it suits.

    >>> families_in_words(["decoder", "encoder"])
    'decoder, encoder'
    """
    return "all" if set(families) == set(FAMILIES) else ", ".join(families)
