"""Names of methods, and the small language ``ella(lam=0.3)+o-lora`` in which people type them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError, validate_call

from everlora.core import plugins
from everlora.core.errors import ConfigError, nearest
from everlora.core.method import Method, compose

FAMILIES = ("decoder", "encoder-decoder", "encoder", "image-classifier")
TEXT_ANSWERS = FAMILIES[:2]
"""The families that answer in text."""

NOT_DECLARED = "not declared"
"""What tables show of a method that does not say what it stores or costs; ``nothing`` is a claim."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method as the registry knows it.

    Attributes:
        name, title, paper: the name one types, what it stands for, where it was published.
        stores: what must be kept per task, as a formula over the adapted matrices.
        cost: what it adds to a training step of plain LoRA.
        replay: whether it keeps and re-uses data of earlier tasks.
        families: the model families on which it makes sense.
        rows: the rows of tables of all systems that it brings, as expressions; none for plug-ins and studies.
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
    rows: tuple[str, ...] | None
    build: Callable[..., Method]

    @property
    def tabled(self) -> tuple[str, ...]:
        """Its rows in tables of all systems: as declared, else itself unless it is a plug-in."""
        if self.rows is not None:
            return self.rows
        return () if self.build().plugin else (self.name,)

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
    stores: str = NOT_DECLARED,
    cost: str = NOT_DECLARED,
    replay: bool = False,
    families: tuple[str, ...] = FAMILIES,
    aliases: tuple[str, ...] = (),
    rows: tuple[str, ...] | None = None,
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Register the decorated function, which takes keyword options with defaults, under ``name``; see `Entry`.

    Raises:
        ConfigError: the name is taken, or an option has no default; raised where the function is decorated.
    """

    def register(build: Callable[..., Method]) -> Callable[..., Method]:
        options = inspect.signature(build).parameters.values()
        if lacking := [option.name for option in options if option.default is option.empty]:
            raise ConfigError(
                f"the method {name!r} is listed and run without options, too; give {', '.join(lacking)} a default"
            )
        entry = Entry(
            name=name,
            title=title,
            paper=paper,
            stores=stores,
            cost=cost,
            replay=replay,
            families=families,
            aliases=aliases,
            rows=rows,
            build=build,
        )
        words = (name, *aliases)
        for word in words:
            taken = _names.get(key(word), name)
            # The same name from another module would change, unseen, what the name means.
            if taken != name or (taken in _entries and _entries[taken].build.__module__ != build.__module__):
                raise ConfigError(f"the method name {word!r} is taken by {taken!r}")
        _names.update({key(word): name for word in words})
        _entries[name] = entry
        return build

    return register


def entries() -> list[Entry]:
    """All registered methods, by name."""
    plugins.offered()
    return [_entries[name] for name in sorted(_entries)]


def entry(name: str) -> Entry:
    """Look a method up.

    Raises:
        ConfigError: unknown name; the message holds the nearest one.
    """
    if key(name) not in _names:
        broken = plugins.offered()
    if key(name) not in _names:
        words = [*_entries, *(alias for e in _entries.values() for alias in e.aliases)]
        lost = "".join(f"; {line}" for line in broken)
        raise ConfigError(f"unknown method {name!r}{nearest(name, words)} (everlora methods lists them){lost}")
    return _entries[_names[key(name)]]


def parse(expression: str) -> Method:
    """Build the method that ``expression`` names.

    ``name``, ``name(option=value, ...)``, and several of them joined by ``+``.

    Raises:
        ConfigError: syntax, unknown method or option, a value of the wrong type, or parts that exclude one another.
    """
    known = [entry(name) for name, _ in split_expression(expression)]
    families = tuple(f for f in FAMILIES if all(f in one.families for one in known))
    built = compose(*(build(name, **_options(name, given)) for name, given in split_expression(expression)))
    return replace(built, expression=expression, families=families, replay=any(one.replay for one in known))


def split_expression(expression: str) -> list[tuple[str, str]]:
    """The names that ``expression`` joins, each with its options as they were typed.

    Raises:
        ConfigError: it cannot be read.
    """
    found = re.findall(r"[^+(]+(?:\([^)]*\)\s*)?", expression)
    if "+".join(found) != expression or not found:
        raise ConfigError(f"cannot read the method {expression!r}; write name, name(option=value) or a+b")
    split = []
    for term in found:
        match = re.fullmatch(r"([^()]+?)\s*(?:\(([^()]*)\))?", term.strip())
        if match is None:
            raise ConfigError(f"cannot read {term.strip()!r}; write name or name(option=value, ...)")
        split.append((match[1], match[2] or ""))
    return split


def origins(expression: str) -> list[plugins.Origin]:
    """Where the methods that ``expression`` joins are from, as far as they are not our own."""
    found = {
        known.name: plugins.origin(known.build) for known in (entry(name) for name, _ in split_expression(expression))
    }
    return [{"method": name, **where} for name, where in found.items() if where]


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


def _options(name: str, given: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in given.split(","))):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"cannot read the option {pair!r} of {name!r}; write option=value")
        if option.strip() in options:
            raise ConfigError(f"the option {option.strip()!r} of {name!r} is given twice; keep one")
        options[option.strip()] = value.strip()
    return options
