"""Reads the small language in which people name methods: ``ella(lam=0.3)+o-lora`` becomes a `Method`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from everlora.core import plugins
from everlora.core.errors import ConfigError, nearest
from everlora.core.registry import FAMILIES, METHODS, entry, key, unknown

if TYPE_CHECKING:
    from everlora.core.method import Method

LONGEST = 5000
"""Characters of an expression."""


def parse(expression: str) -> Method:
    """Build the method that ``expression`` names: ``name``, ``name(option=value, ...)``, or several joined by ``+``.

    >>> parse("ella(lam=0.3)").penalties[0].lam
    0.3
    >>> [part.name for part in parse("o-lora+replay(ratio=0.1)").parts()]
    ['orthogonality', 'row_replay']

    Raises:
        ConfigError: syntax, unknown method or option, a value of the wrong type, or parts that exclude one another.
    """
    names = [name for name, _ in split_expression(expression)]
    check_declared(names)

    from everlora.core.method import compose

    known = [entry(name) for name in names]
    families = tuple(f for f in FAMILIES if all(f in one.families for one in known))
    built = compose(*(build(name, **options_of(name, given)) for name, given in split_expression(expression)))
    return replace(built, expression=expression, families=families, replay=any(one.replay for one in known))


def declared_methods() -> dict[str, list[str]]:
    """Return everlora's own methods with their aliases, read from their source: running it takes torch."""
    calls = (
        call
        for file in (files("everlora") / "methods").iterdir()
        if file.name.endswith(".py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "method" and call.args
    )
    found = {}
    for call in calls:
        aliases = [ast.literal_eval(one.value) for one in call.keywords if one.arg == "aliases"]
        found[str(ast.literal_eval(call.args[0]))] = [alias for some in aliases for alias in some]
    return found


def check_declared(names: Iterable[str]) -> None:
    """Refuse a name that no method can have, before torch is imported to look it up.

    Raises:
        ConfigError: everlora has no such method, and nothing from outside is here that might.
    """
    if METHODS.loaded or plugins.may_offer(METHODS.group):
        return  # `METHODS.get` knows better
    words = {key(word): word for name, others in declared_methods().items() for word in (*reversed(others), name)}
    for name in names:
        if key(name) not in words:
            raise ConfigError(unknown(METHODS.kind, name, words.values()))


def split_expression(expression: str) -> list[tuple[str, str]]:
    """Return the names that ``expression`` joins, each with its options as they were typed.

    Raises:
        ConfigError: it cannot be read.
    """
    # Before anything is matched: regular expressions take long on long texts.
    if len(expression) > LONGEST:
        raise ConfigError(f"the method {expression[:40]!r}… has {len(expression):,} characters, at most {LONGEST:,}")
    found = split_outside_brackets(expression, "+")
    if not all(found):
        raise ConfigError(f"cannot read the method {expression!r}; write name, name(option=value) or a+b")
    split = []
    for term in found:
        match = re.fullmatch(r"([^()]+?)\s*(?:\((.*)\))?", term.strip(), re.DOTALL)
        if match is None:
            raise ConfigError(f"cannot read {term.strip()!r}; write name or name(option=value, ...)")
        split.append((match[1], match[2] or ""))
    return split


def build(name: str, **options: Any) -> Method:
    """Build one method from keyword options, which are checked and converted by the builder's annotations.

    Raises:
        ConfigError: unknown method or option, or a value of the wrong type.
    """
    from pydantic import ValidationError, validate_call

    from everlora.core.method import Method

    found = entry(name)
    known = found.options()
    for option in options:
        if option not in known:
            raise ConfigError(f"method {found.name!r} has no option {option!r}{nearest(option, known)}")
    try:
        built = validate_call(found.build)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0])
        # An option that may be a number or a word fails once for each.
        found_amiss = [one["msg"].removeprefix("Value error, ") for one in error.errors() if one["loc"][0] == where]
        reasons = "; or: ".join(dict.fromkeys(found_amiss))
        raise ConfigError(f"method {found.name!r}, option {where!r}: {reasons} (got {first['input']!r})") from None
    if not isinstance(built, Method):
        raise ConfigError(f"what builds the method {found.name!r} must return a Method, not {type(built).__name__}")
    return built


def options_of(name: str, given: str) -> dict[str, str]:
    """Return the options of a method as they were typed, by name.

    >>> options_of("ella", "rho = 0.1, lam=budget(nats=3e-4)")
    {'rho': '0.1', 'lam': 'budget(nats=3e-4)'}

    Raises:
        ConfigError: one cannot be read, or is given twice.
    """
    options: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in split_outside_brackets(given, ","))):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"cannot read the option {pair!r} of {name!r}; write option=value")
        if option.strip() in options:
            raise ConfigError(f"the option {option.strip()!r} of {name!r} is given twice; keep one")
        options[option.strip()] = value.strip()
    return options


def split_list(text: str) -> list[str]:
    """Return the expressions of a list; commas inside brackets belong to options.

    >>> split_list("ewc, o-lora(lam=1,rank=2), ella+migu")
    ['ewc', 'o-lora(lam=1,rank=2)', 'ella+migu']
    """
    return [one.strip() for one in split_outside_brackets(text, ",") if one.strip()]


def split_outside_brackets(text: str, mark: str) -> list[str]:
    """Split a text at a mark, where no bracket is open.

    Raises:
        ConfigError: brackets do not match.
    """
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
        if character == mark and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ConfigError(f"cannot read the method {text!r}: brackets do not match; write name(option=value) or a+b")
    return parts
