"""Makes pages to look at: the command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everlora.cli.common import Plugin, Quiet, say


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Runs, learners, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The page. [report.html in the one DIR]")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow runs of different protocols.")] = False,
    mixed_fingerprints: Annotated[
        bool, typer.Option("--mixed-fingerprints", help="Allow scores of other precisions or versions.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="METHOD", help="Set every method against this one, not the best.")
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
) -> None:
    """Make one page to look at: of a run or a learner, or of several runs side by side."""
    from everlora.report.write import Allowed, write_report

    place = write_report(folders, out, Allowed(mixed, mixed_fingerprints, baseline))
    if not quiet:
        say(f"written to {place} ({place.stat().st_size / 1000:,.0f} kB)")
    if open_:
        typer.launch(place.resolve().as_uri())
