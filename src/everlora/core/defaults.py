"""Lets an option say, as data next to its default value, where that value comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class Default:
    """Says whose choice the default value of an option is, and why.

    It stands in the option's annotation, where pydantic, which converts the values, passes over it:

    >>> from typing import Annotated
    >>> def build(*, rank: Annotated[int, Default("Table 2 of the paper has 8.")] = 8) -> None: ...
    >>> defaults(build)["rank"].source
    'Table 2 of the paper has 8.'

    Attributes:
        source: one or more whole sentences.
        ours: whether the value is a choice of this library; else it is that of a paper or of its authors' code.

    Raises:
        ValueError: ``source`` is not a sentence that ends with a full stop.
    """

    source: str
    ours: bool = False

    def __post_init__(self) -> None:
        if not self.source.strip().endswith("."):
            raise ValueError(f"the source of a default is a whole sentence with a full stop, not {self.source!r}")


@dataclass(frozen=True)
class Search:
    """Holds values of an option that are tried when a method is tuned; it stands in the option's annotation.

    >>> from typing import Annotated
    >>> def build(*, lam: Annotated[float, Search(0.1, 1.0)] = 0.1) -> None: ...
    >>> searches(build)
    {'lam': (0.1, 1.0)}

    Attributes:
        values: in the order in which they are tried.
    """

    values: tuple[float | str, ...]

    def __init__(self, *values: float | str) -> None:
        object.__setattr__(self, "values", values)


def searches(build: Callable[..., Any]) -> dict[str, tuple[float | str, ...]]:
    """Return the values to try of every option of ``build`` that is annotated with a `Search`."""
    kinds = get_type_hints(build, include_extras=True)
    found = {name: next((n for n in get_args(kind) if isinstance(n, Search)), None) for name, kind in kinds.items()}
    return {name: one.values for name, one in found.items() if one is not None}


def defaults(build: Callable[..., Any]) -> dict[str, Default]:
    """Return the `Default` of every option of ``build`` that is annotated with one."""
    kinds = get_type_hints(build, include_extras=True)
    notes = {
        name: next((note for note in get_args(kind) if isinstance(note, Default)), None)
        for name, kind in kinds.items()
    }
    return {name: note for name, note in notes.items() if note is not None}
