"""Joins two methods role by role: whose adapter is trained, what must agree, and which parts are taken once."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from everlora.core.adapter import RULES, Adapter, Consolidator
from everlora.core.errors import ConfigError
from everlora.core.roles import Budget, GradientTransform, PredictsRise, WeightPenalty

if TYPE_CHECKING:
    from everlora.core.method import Method


def host_of(first: Method, other: Method) -> tuple[Adapter, Consolidator]:
    """Return adapter and consolidator of two methods together: those of the one that is no plug-in, if one is.

    Of two plug-ins those of the one that by itself takes a fresh adapter for every task, if one does.

    Raises:
        ConfigError: both must be hosts, or neither needs to be, and they differ.
    """
    hosts = [not first.plugin, not other.plugin]
    if first.plugin and other.plugin:
        hosts = [first.adapter.policy == "new", other.adapter.policy == "new"]
    if hosts[0] != hosts[1]:
        host = first if hosts[0] else other
        return host.adapter, host.consolidator
    agree(first, other, "consolidator", first.consolidator.rule, other.consolidator.rule, RULES)
    agree(first, other, "adapter policy", first.adapter.policy, other.adapter.policy)
    if first.adapter.form == other.adapter.form:
        agree(first, other, "adapter", first.adapter, other.adapter)
    elif not (first.adapter.low_rank and other.adapter.low_rank):
        agree(first, other, "adapter", first.adapter.form, other.adapter.form)
    return (first if first.adapter.form == "svd" else other).adapter, first.consolidator


def agree(first: Method, other: Method, role: str, a: Any, b: Any, meaning: str = "") -> None:
    """Refuse two methods that fill a single role differently.

    Raises:
        ConfigError: they do; the message says how, and what the values mean.
    """
    if a != b:
        this, that = _unlike(a, b)
        raise ConfigError(
            f"{first.name!r} and {other.name!r} exclude one another: the first has {this} as {role}, the second "
            f"{that}{meaning}; keep one of them"
        )


def _unlike(a: Any, b: Any) -> tuple[str, str]:
    """Describe two values that differ: of two parts of one kind only the settings in which they do."""
    if type(a) is not type(b) or not is_dataclass(a):
        return repr(a), repr(b)
    differ = [f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)]
    this, that = (", ".join(f"{name}={getattr(one, name)!r}" for name in differ) for one in (a, b))
    return this, that


def either(first: Method, other: Method, role: str, a: Any, b: Any) -> Any:
    """Return what fills a single role, if one of two methods fills it.

    Raises:
        ConfigError: both do, and differ.
    """
    if a is not None and b is not None:
        agree(first, other, role, a, b)
    return a if a is not None else b


def in_turn(transforms: tuple[GradientTransform, ...]) -> tuple[GradientTransform, ...]:
    """Put masks before projections, however the methods were typed: a mask behind one would leave the complement."""
    return tuple(sorted(transforms, key=lambda part: part.needs.order))


def joined(these: tuple[Any, ...], those: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the parts of both sides, each once.

    Raises:
        ConfigError: one part has different settings on the two sides.
    """
    for part in those:
        if (twin := next((p for p in these if p.name == part.name and p != part), None)) is not None:
            raise ConfigError(f"the part {part.name!r} is given twice, as {twin} and as {part}; keep one")
    return these + tuple(part for part in those if part not in these)


Penalties = tuple[WeightPenalty, ...]


def one_prediction(these: Penalties, those: Penalties) -> tuple[Penalties, Penalties]:
    """Leave out the prediction that came with a budget on one side, where the other side predicts in a way of its own.

    So the curvature of ``kfac(samples=64)`` is what ``ella(lam=budget)`` is held against, too.
    """
    return _needed(these, those), _needed(those, these)


def _needed(these: Penalties, those: Penalties) -> Penalties:
    held = any(isinstance(part.strength, Budget) for part in these)
    others = {part.name: part for part in those}
    return tuple(part for part in these if not (held and _as_it_comes(part) and others.get(part.name, part) != part))


def _as_it_comes(part: WeightPenalty) -> bool:
    """Return whether a part does nothing but predict, and nobody has set how."""
    if part.strength != 0 or not isinstance(part, PredictsRise) or not is_dataclass(part):
        return False
    return all(getattr(part, setting.name) in (setting.default, 0) for setting in fields(part))
