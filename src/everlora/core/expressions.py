"""Reads the small language in which people name methods: ``ella(lam=0.3)+o-lora`` becomes a `Method`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pydantic import ValidationError, validate_call

from everlora.core.errors import ConfigError, nearest
from everlora.core.method import Method, compose
from everlora.core.registry import FAMILIES, entry

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
    known = [entry(name) for name, _ in split_expression(expression)]
    families = tuple(f for f in FAMILIES if all(f in one.families for one in known))
    built = compose(*(build(name, **_options(name, given)) for name, given in split_expression(expression)))
    return replace(built, expression=expression, families=families, replay=any(one.replay for one in known))


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
        reasons = dict.fromkeys(one["msg"] for one in error.errors() if one["loc"][0] == where)
        raise ConfigError(
            f"method {found.name!r}, option {where!r}: {'; or: '.join(reasons)} (got {first['input']!r})"
        ) from None
    if not isinstance(built, Method):
        raise ConfigError(f"what builds the method {found.name!r} must return a Method, not {type(built).__name__}")
    return built


def _options(name: str, given: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in split_outside_brackets(given, ","))):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"cannot read the option {pair!r} of {name!r}; write option=value")
        if option.strip() in options:
            raise ConfigError(f"the option {option.strip()!r} of {name!r} is given twice; keep one")
        options[option.strip()] = value.strip()
    return options


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
