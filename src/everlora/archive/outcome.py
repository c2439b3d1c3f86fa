"""Shows what a verb came to: short where it is printed, and as a small table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping

from everlora.archive.schema import Record
from everlora.core.notebook import html_table

SHOWN = 6
"""Entries of a list or a mapping that are shown."""
WIDTH = 80
"""Characters of a text that are shown."""


class Outcome(Record):
    """Is what a verb came to; a comparison of weights may have thousands of entries, which nobody wants printed."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._shown())})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, ["", "value"], [[name, value] for name, value in self._shown()])

    def _shown(self) -> list[tuple[str, str]]:
        """Return the fields that say something, by name."""
        return [(name, brief(value)) for name, value in self if value is not None and value != [] and value != {}]


def brief(value: object) -> str:
    """Write a value in a few words.

    >>> brief({"news": 91.23456, "intent": 80.0}), brief(list(range(9))), brief("no " * 40)[-6:]
    ('{news: 91.23, intent: 80}', '[0, 1, 2, 3, 4, 5, … 9 in all]', ' no n…')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Outcome):
        return repr(value)
    if isinstance(value, Record):
        return type(value).__name__
    entries: list[str] = []
    ends = "[]"
    if isinstance(value, Mapping):
        entries, ends = [f"{key}: {brief(one)}" for key, one in list(value.items())[:SHOWN]], "{}"
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Record):
        return f"{len(value)} x {type(value[0]).__name__}"
    elif isinstance(value, list | tuple):
        entries = [brief(one) for one in value[:SHOWN]]
    else:
        text = str(value)
        return text if len(text) <= WIDTH else f"{text[: WIDTH - 1].rstrip()}…"
    more = [f"… {len(value)} in all"] if len(value) > SHOWN else []
    return f"{ends[0]}{', '.join([*entries, *more])}{ends[1]}"
