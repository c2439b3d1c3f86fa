"""Writes a figure to a file, in the form that the file's name says: a drawing, its numbers, or a page with both."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from everlora.archive.atomic import explained, write_text
from everlora.core.errors import ConfigError
from everlora.report.figures import PaperFigure
from everlora.report.page import Figure, Page, Section, render

FORMS = (".svg", ".png", ".csv", ".html")
SCALE = 2
"""Points of a picture to a point of the drawing."""


def check_form(place: Path) -> None:
    """Refuse a file whose name says no form that a figure can have.

    Raises:
        ConfigError: it does not.
    """
    if place.suffix.lower() not in FORMS:
        raise ConfigError(f"{place} names no form of a figure; let it end in {', '.join(FORMS)}")


def save_figure(of: PaperFigure, drawn: Figure, place: Path) -> None:
    """Write a figure.

    Raises:
        FolderError: the file cannot be written.
    """
    form = place.suffix.lower()
    with explained(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        if form == ".png":
            import vl_convert

            place.write_bytes(vl_convert.svg_to_png(_svg(drawn), scale=SCALE))
        else:
            write_text(place, {".svg": _svg, ".csv": _csv}[form](drawn) if form != ".html" else _page(of, drawn))


def _svg(drawn: Figure) -> str:
    """Return a drawing on white paper: by itself it has no page whose colours it could take."""
    start, end, rest = drawn.svg.partition(">")
    return f'{start}{end}<rect width="100%" height="100%" fill="#ffffff"/>{rest}'


def _csv(drawn: Figure) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(drawn.table.heads)
    writer.writerows([cell.text.replace("−", "-") for cell in row] for row in drawn.table.rows)
    return text.getvalue()


def _page(of: PaperFigure, drawn: Figure) -> str:
    section = Section("figure", drawn.title, figures=[drawn])
    subtitle = f"as in {of.paper}: {of.where}"
    return render(Page(drawn.title, "a figure", subtitle, (), (), (section,), data={"record": None}))
