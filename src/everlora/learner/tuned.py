"""Reads the table of tuned systems that `everlora tune` writes, and finds the row of a system however it is spelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from everlora.core.errors import ConfigError, nearest
from everlora.core.expressions import options_of, split_expression
from everlora.core.registry import entry
from everlora.learner.resolve import read_recipe
from everlora.settings.spec import RawSettings

SETS, NOTES = ("method", "train", "lora"), ("dev", "trials")
"""Keys of a row: those that say what is run, and those that say how it was found."""
System = tuple[tuple[str, frozenset[tuple[str, str]]], ...]
"""The methods of an expression, each with the options that it sets: equal for all spellings of one system."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Holds the settings under which a system was found to be at its best.

    Attributes:
        method: the expression with the options that were found.
        settings: the training arguments that were found, under ``train``.
    """

    method: str
    settings: RawSettings


def system_of(expression: str) -> System:
    """Return what an expression names, whatever blanks, brackets, digits or other names it is written with.

    Options that are left out are not filled in: a system that was searched is none whose options were given.

    >>> import everlora.methods
    >>> system_of("decay()+ella( lam=0.30, rho = 1 )") == system_of("decay+ella(rho=1.0,lam=.3)")
    True

    Raises:
        ConfigError: it cannot be read, or names an unknown method.
    """
    found = split_expression(expression)
    return tuple(
        (entry(name).name, frozenset((option, _value(value)) for option, value in options_of(name, given).items()))
        for name, given in found
    )


def _value(text: str) -> str:
    """Return a value in one spelling.

    >>> _value("Budget( nats = 3e-4 )"), _value("budget()"), _value(".50")
    ('budget(nats=0.0003)', 'budget', '0.5')
    """
    try:
        return repr(float(text))
    except ValueError:
        plain = "".join(text.lower().split())
    if not plain.endswith(")"):
        return plain
    ((name, given),) = split_expression(plain)
    options = ",".join(sorted(f"{option}={_value(value)}" for option, value in options_of(name, given).items()))
    return f"{name}({options})" if options else name


def distinct(systems: Iterable[str]) -> list[str]:
    """Return systems, each of them once, in the first spelling that names it.

    Raises:
        ConfigError: an unknown method, or an expression that cannot be read.
    """
    found: dict[System, str] = {}
    for expression in systems:
        found.setdefault(system_of(expression), expression)
    return list(found.values())


def row_of(system: str, tuned: Mapping[str, Tuned]) -> Tuned | None:
    """Return what was found for a system, under whatever spelling; None where nothing was."""
    wanted = system_of(system)
    return next((row for name, row in tuned.items() if known_system(name) == wanted), None)


def without_row(systems: Iterable[str], tuned: Mapping[str, Tuned]) -> list[str]:
    """Return the systems for which nothing was found."""
    return [system for system in systems if row_of(system, tuned) is None]


def known_system(name: str) -> System | str:
    """Return the system that a name in a table is of; the name where it is of a method that is not known here."""
    try:
        return system_of(name)
    except ConfigError:
        return name


def read_tuned(path: Path) -> dict[str, Tuned]:
    """Read what `everlora.learner.tune` wrote: by system, its method with options and its settings.

    Raises:
        ConfigError: the file is missing or something else, or would be read otherwise than it was meant.
    """
    rows = rows_of(path)
    if not rows:
        raise ConfigError(f"{path} has no row under systems; `everlora tune` writes one for each system")
    return {
        system: Tuned(
            method=str(facts.get("method", system)),
            settings={key: value for key, value in facts.items() if key in ("train", "lora")},
        )
        for system, facts in rows.items()
    }


def rows_of(path: Path) -> dict[str, RawSettings]:
    """Return the rows of a table of tuned systems as they stand there, none perhaps.

    Raises:
        ConfigError: see `read_tuned`.
    """
    content = read_recipe(path)
    rows = content.get("systems")
    if not isinstance(rows, Mapping):
        raise ConfigError(f"{path} is no table of tuned systems; `everlora tune` writes one")
    _check_keys(content, ("systems",), str(path))
    seen: dict[System | str, str] = {}
    for system, facts in rows.items():
        where = f"{path}, system {system!r}"
        if not isinstance(facts, Mapping) or not facts:
            raise ConfigError(f"{where}: the row is empty; write method and train, or take it out")
        _check_keys(facts, (*SETS, *NOTES), where)
        _check_row(str(system), facts, where)
        if (other := seen.setdefault(known_system(str(system)), str(system))) != str(system):
            raise ConfigError(f"{where}: the row {other!r} is of the same system; keep one")
    return {str(system): facts for system, facts in rows.items()}


def _check_keys(content: RawSettings, known: tuple[str, ...], where: str) -> None:
    for name in content:
        if name not in known:
            raise ConfigError(f"{where}: unknown key {name!r}{nearest(str(name), known)}")


def _check_row(system: str, facts: RawSettings, where: str) -> None:
    """Refuse a row that sets nothing, or another method than the one that it is of."""
    given = [key for key in SETS if key in facts]
    for key in given:
        kind, what = (str, "an expression") if key == "method" else (Mapping, "a mapping of names to values")
        if not isinstance(facts[key], kind) or not facts[key]:
            raise ConfigError(f"{where}: {key!r} must be {what} (got {facts[key]!r})")
    if not given:
        raise ConfigError(f"{where}: the row sets nothing; write {' or '.join(SETS)}, or take it out")
    wanted, found = known_system(system), known_system(str(facts.get("method", system)))
    if isinstance(wanted, str) or isinstance(found, str):
        return  # of a plug-in that is not here: what cannot be run is refused where it is to be
    # What was searched is set besides what the row's name sets, never in its place.
    if len(wanted) != len(found) or any(
        (name, options - more) != (other, frozenset())
        for (name, options), (other, more) in zip(wanted, found, strict=True)
    ):
        raise ConfigError(f"{where}: 'method' is another system (got {facts['method']!r}); name its row after it")
