"""Registers methods, benchmarks and metrics by name: one kind of registry for all three, and that of methods.

    @method("my-way", ...)        @benchmark("my-three", ...)        @metric("token_f1", ...)
            │                             │                                 │
        METHODS                       BENCHMARKS                         METRICS
      (this file)                 (`core.benchmark`)              (`metrics.registry`)

A name is found in everlora itself, in what was imported or passed with ``--plugin FILE``, and at last in installed
packages, which are asked only for a name that nobody here knows. Nothing in this file imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from everlora.core import plugins
from everlora.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from everlora.core.method import Method

T = TypeVar("T")
FAMILIES = ("decoder", "encoder-decoder", "encoder", "image-classifier")
TEXT_ANSWERS = FAMILIES[:2]
"""The families that answer in text."""

NOT_DECLARED = "not declared"
"""What tables show of a method that does not say what it stores or costs; ``nothing`` is a claim."""


def key(name: str) -> str:
    """Forgive case, dashes, underscores and blanks: ``O-LoRA``, ``olora`` and ``o_lora`` are one name."""
    return re.sub(r"[\s_-]", "", name).lower()


class Registry(Generic[T]):
    """Holds things of one kind by name, with the module that each is from.

    Args:
        kind: what they are, in one word; installed packages offer them by entry points of ``everlora.<kind>s``.
        own: the module that registers everlora's own, imported when a name is first looked up.
    """

    def __init__(self, kind: str, *, own: str) -> None:
        self.kind, self.group, self._own = kind, f"everlora.{kind}s", own
        self._things: dict[str, T] = {}
        self._modules: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._spelled: dict[str, str] = {}
        KINDS[kind] = self

    def add(self, name: str, thing: T, *, module: str, aliases: Iterable[str] = ()) -> None:
        """Register a thing; the same name from the same module replaces what it was.

        Args:
            name: under which it is listed and recorded.
            thing: the thing.
            module: the full name of the module that defines it.
            aliases: other names under which it is found.

        Raises:
            ConfigError: a name is taken; the same name from another module would change, unseen, what it means.
        """
        if not plugins.is_ours(module):
            importlib.import_module(self._own)  # first, so that no plug-in can take one of its names
        words = (name, *aliases)
        for word in words:
            taken = self._words.get(key(word), name)
            if taken != name or self._modules.get(taken, module) != module:
                raise ConfigError(f"the {self.kind} name {word!r} is taken by {taken!r}")
        self._words.update({key(word): name for word in words})
        self._spelled.update({key(word): word for word in reversed(words)})
        self._things[name], self._modules[name] = thing, module

    def find(self, name: str) -> T | None:
        """Look a thing up by its name or an alias; None if there is none, installed packages included."""
        importlib.import_module(self._own)
        # Only for names that are not ours: importing what other packages offer may take seconds.
        if key(name) not in self._words:
            plugins.offered(self.group)
        known = self._words.get(key(name))
        return None if known is None else self._things[known]

    def get(self, name: str) -> T:
        """Look a thing up by its name or an alias.

        Raises:
            ConfigError: there is none; the message holds the nearest name, and what could not be imported.
        """
        found = self.find(name)
        if found is None:
            lost = "".join(f"; {line}" for line in plugins.offered(self.group))
            raise ConfigError(f"{unknown(self.kind, name, self.words())}{lost}")
        return found

    def all(self) -> dict[str, T]:
        """Return everything by name, what installed packages registered included, in the order of registration."""
        importlib.import_module(self._own)
        plugins.offered(self.group)
        return dict(self._things)

    @property
    def loaded(self) -> bool:
        """Return whether everlora's own module of this kind was imported."""
        return self._own in sys.modules

    def words(self) -> list[str]:
        """Return all names and aliases."""
        return list(self._spelled.values())

    def from_outside(self) -> list[str]:
        """Return the names of what plug-ins have registered so far."""
        return [name for name, module in self._modules.items() if not plugins.is_ours(module)]

    def origin(self, name: str) -> plugins.Origin | None:
        """Return where a thing is from: package and version, or file and hash; None if everlora's own or unknown."""
        known = self._words.get(key(name))
        return None if known is None else plugins.origin(self._modules[known])

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Forget at the end what was registered inside the ``with`` block; for tests."""
        importlib.import_module(self._own)
        before = dict(self._things), dict(self._modules), dict(self._words), dict(self._spelled)
        try:
            yield
        finally:
            self._things, self._modules, self._words, self._spelled = before


def unknown(kind: str, name: str, words: Iterable[str]) -> str:
    """Say that there is no such thing, and which one was perhaps meant."""
    return f"unknown {kind} {name!r}{nearest(name, words)} (everlora {kind}s lists them)"


KINDS: dict[str, Registry[Any]] = {}
"""The registries by kind."""


def origins(**names: Iterable[str]) -> list[plugins.Origin]:
    """Return where plug-ins are from, for the record of a run.

    Args:
        **names: by kind, what is used: ``origins(method=["ella", "my-way"], metric=["token_f1"])``.

    Returns:
        For each name that is not everlora's own: its kind and name with ``package`` and ``version``, or ``file`` and
        ``sha256``.
    """
    found = []
    for kind, used in names.items():
        for name in dict.fromkeys(used):
            if kind in KINDS and (where := KINDS[kind].origin(name)):
                found.append({kind: name, **where})
    return found


@contextmanager
def isolated() -> Iterator[None]:
    """Forget at the end what was registered inside the ``with`` block, of every kind; for tests."""
    with ExitStack() as stack:
        for registry in KINDS.values():
            stack.enter_context(registry.isolated())
        before = dict(plugins.ran)
        try:
            yield
        finally:
            plugins.ran = before


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Describes a method as the registry knows it.

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
        """Return the method's rows in tables of all systems: as declared, else itself unless it is a plug-in."""
        if self.rows is not None:
            return self.rows
        return () if self.build().plugin else (self.name,)

    def options(self) -> dict[str, object]:
        """Return the options and their defaults, as they are typed."""
        defaults = {name: p.default for name, p in inspect.signature(self.build).parameters.items()}
        return {name: one if isinstance(one, str | int | float | None) else str(one) for name, one in defaults.items()}

    def doc(self) -> str:
        """Return the method's page: formula, symbols, source, what we do differently."""
        return inspect.getdoc(inspect.getmodule(self.build)) or ""


METHODS: Registry[Entry] = Registry("method", own="everlora.methods")
"""All methods."""


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

    >>> from everlora import Method, parse
    >>> from everlora.parts import EnergyOverlap
    >>> with isolated():  # forgets it again, as tests do
    ...     @method("weak-ella", title="ELLA at a tenth of its strength", paper="none, an example")
    ...     def weak_ella(lam: float = 0.03):
    ...         return Method(name="weak-ella", penalties=(EnergyOverlap(lam=lam),))
    ...     parse("weak-ella(lam=0.01)").penalties[0].strength
    0.01

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
        METHODS.add(name, entry, module=build.__module__, aliases=aliases)
        return build

    return register


def entries() -> list[Entry]:
    """Return all registered methods, by name."""
    return [known for _, known in sorted(METHODS.all().items())]


def entry(name: str) -> Entry:
    """Look a method up.

    Raises:
        ConfigError: unknown name; the message holds the nearest one.
    """
    return METHODS.get(name)
