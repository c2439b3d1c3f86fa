"""Names of methods, and the small language ``ella(lam=0.3)+o-lora`` in which people type them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError, validate_call

from everlora.core.errors import ConfigError, nearest
from everlora.core.method import Method, compose

FAMILIES = ("decoder", "encoder-decoder", "encoder", "image-classifier")
TEXT_ANSWERS = FAMILIES[:2]
"""The families that answer in text."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method as the registry knows it.

    Attributes:
        name, title, paper: the name one types, what it stands for, where it was published.
        stores: what must be kept per task, as a formula over the adapted matrices.
        cost: what it adds to a training step of plain LoRA.
        replay: whether it keeps and re-uses data of earlier tasks.
        families: the model families on which it makes sense.
        build: the function that makes the `Method` from keyword options.
    """

    name: str
    title: str
    paper: str
    stores: str
    cost: str
    replay: bool
    families: tuple[str, ...]
    aliases: tuple[str, ...]
    build: Callable[..., Method]

    def options(self) -> dict[str, Any]:
        """Options and their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}

    def doc(self) -> str:
        """The method's page: formula, symbols, source, what we do differently."""
        return inspect.getdoc(inspect.getmodule(self.build)) or ""


_entries: dict[str, Entry] = {}
_names: dict[str, str] = {}


def key(name: str) -> str:
    """Forgive case, dashes, underscores and blanks: ``O-LoRA``, ``olora`` and ``o_lora`` are one name."""
    return re.sub(r"[\s_-]", "", name).lower()


def method(
    name: str,
    *,
    title: str,
    paper: str,
    stores: str,
    cost: str = "nothing",
    replay: bool = False,
    families: tuple[str, ...] = FAMILIES,
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Register the decorated function, which takes keyword options only, under ``name``."""

    def register(build: Callable[..., Method]) -> Callable[..., Method]:
        entry = Entry(
            name=name,
            title=title,
            paper=paper,
            stores=stores,
            cost=cost,
            replay=replay,
            families=families,
            aliases=aliases,
            build=build,
        )
        words = (name, *aliases)
        for word in words:
            if _names.get(key(word), name) != name:
                raise ConfigError(f"the method name {word!r} is taken by {_names[key(word)]!r}")
        _names.update({key(word): name for word in words})
        _entries[name] = entry
        return build

    return register


def entries() -> list[Entry]:
    """All registered methods, by name."""
    return [_entries[name] for name in sorted(_entries)]


def entry(name: str) -> Entry:
    """Look a method up.

    Raises:
        ConfigError: unknown name; the message holds the nearest one.
    """
    if key(name) not in _names:
        words = [*_entries, *(alias for e in _entries.values() for alias in e.aliases)]
        raise ConfigError(f"unknown method {name!r}{nearest(name, words)} (everlora methods lists them)")
    return _entries[_names[key(name)]]


def parse(expression: str) -> Method:
    """Build the method that ``expression`` names.

    ``name``, ``name(option=value, ...)``, and several of them joined by ``+``.

    Raises:
        ConfigError: syntax, unknown method or option, a value of the wrong type, or parts that exclude one another.
    """
    terms = re.findall(r"[^+(]+(?:\([^)]*\)\s*)?", expression)
    if "+".join(terms) != expression or not terms:
        raise ConfigError(f"cannot read the method {expression!r}; write name, name(option=value) or a+b")
    names = [term.partition("(")[0].strip() for term in terms]
    families = tuple(f for f in FAMILIES if all(f in entry(name).families for name in names))
    return replace(compose(*(_term(term.strip()) for term in terms)), spelt=expression, families=families)


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
        return validate_call(found.build)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0])
        # An option that may be a number or a word fails once for each.
        reasons = dict.fromkeys(one["msg"] for one in error.errors() if one["loc"][0] == where)
        raise ConfigError(
            f"method {found.name!r}, option {where!r}: {'; or: '.join(reasons)} (got {first['input']!r})"
        ) from None


def _term(term: str) -> Method:
    found = re.fullmatch(r"([^()]+?)\s*(?:\(([^()]*)\))?", term)
    if found is None:
        raise ConfigError(f"cannot read {term!r}; write name or name(option=value, ...)")
    options: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in (found[2] or "").split(","))):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"cannot read the option {pair!r} of {found[1]!r}; write option=value")
        if option.strip() in options:
            raise ConfigError(f"the option {option.strip()!r} of {found[1]!r} is given twice; keep one")
        options[option.strip()] = value.strip()
    return build(found[1], **options)
