"""Puts pages together: typed pieces in, one self-contained HTML file out.

A page holds its style, its script and its data, and asks nothing of the network. Texts of users (names, labels,
answers) are escaped by the templates; only what this package makes itself (SVG) is let through as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.core.plain import Json

if TYPE_CHECKING:
    from jinja2 import Environment

BASE_BYTES, ANSWER_BYTES, MOST_BYTES = 900_000, 40, 3_000_000
"""What a page may weigh: a base, more for every answer that it shows, and never more than the last."""
MISSING = "a report needs the packages of everlora[report] (pip install 'everlora[report]'): {} is not installed"
TEMPLATES = "everlora.report"


@dataclass(frozen=True)
class Cell:
    """Holds one cell of a table.

    Attributes:
        text: what it shows.
        heat: 0 to 1, how strongly its ground is coloured; None for none.
        kind: ``name`` for text, ``number``; ``new`` for a task right after it was learned; ``best``.
        hint: what a pointer shows besides.
        under: a second line, smaller.
        link: where the text leads.
    """

    text: str
    heat: float | None = None
    kind: str = "number"
    hint: str = ""
    under: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Holds a table.

    Attributes:
        heads: of its columns.
        rows: of cells, the first of which is the head of its row.
        caption: how to read it.
        name: of its file when it is downloaded.
        narrow: whether it is folded away under its caption.
        title: a heading of its own.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    name: str = ""
    narrow: bool = False
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """Holds a figure that is drawn, with the numbers behind it.

    Attributes:
        name: of its files when it is downloaded.
        title: what is seen.
        svg: the drawing.
        caption: how to read it.
        table: the numbers.
        repeated: whether the page shows this table anyway, so that it need not stand under the drawing, too.
    """

    name: str
    title: str
    svg: str
    caption: str
    table: Table
    repeated: bool = False


@dataclass(frozen=True)
class Tile:
    """Holds a number of the first screen, with its interval and what it means."""

    label: str
    value: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Holds a part of a page.

    Attributes:
        name: its anchor.
        title: its heading.
        text: sentences before all else.
        figures, tables: what it shows.
        notes: sentences behind them, what is not there and why among them.
        commands: what a reader may type.
        browser: whether the browser of answers stands in it.
        pairs: facts, name by name.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    browser: bool = False
    pairs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """Holds a whole page.

    Attributes:
        title: of the page.
        kind: what it is of: a run, a learner, a comparison.
        subtitle: a line under the title.
        summary: what was found, in a sentence or two.
        alerts: what a reader must know first.
        warnings: what was found amiss, one by one.
        tiles: the first numbers.
        sections: in order.
        data: what scripts read, and what is downloaded as JSON.
        files: texts that can be downloaded, by file name.
    """

    title: str
    kind: str
    subtitle: str
    summary: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    alerts: Sequence[str] = ()
    warnings: Sequence[str] = ()
    data: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def text(value: str, hint: str = "") -> Cell:
    """Make a cell of words."""
    return Cell(value, kind="name", hint=hint)


def without_empty(table: Table) -> Table:
    """Return a table without columns in which no row has anything."""
    full = [k for k in range(len(table.heads)) if k == 0 or any(row[k].text.strip("–") for row in table.rows)]
    rows = [[row[k] for k in full] for row in table.rows]
    return replace(table, heads=[table.heads[k] for k in full], rows=rows)


def needs(package: str) -> ConfigError:
    """Return the error of a page that cannot be made, since a package is missing."""
    return ConfigError(MISSING.format(package))


@cache
def environment() -> Environment:
    """Return the templates, with everything escaped that they are given.

    Raises:
        ConfigError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise needs("Jinja2") from None
    return Environment(
        loader=PackageLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(page: Page) -> str:
    """Return a page as HTML."""
    folder = files(TEMPLATES).joinpath("templates")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    return (
        environment()
        .get_template("page.html")
        .render(page=page, style=style, script=script, version=version("everlora"))
    )
