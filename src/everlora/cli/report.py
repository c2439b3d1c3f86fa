"""Makes pages to look at: the command ``report``, and the page that other commands leave behind."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from everlora.cli.common import Baseline, Json, Mixed, MixedFingerprints, Plugin, Quiet, say
from everlora.core.errors import EverloraError

NEEDED = ("jinja2", "altair", "vl_convert")
"""What everlora[report] installs."""
MOST_BYTES = 20_000_000
"""Size of all answers up to which a page is made without being asked for."""
WithReport = Annotated[
    bool,
    typer.Option(
        "--report/--no-report",
        envvar="EVERLORA_REPORT",
        show_envvar=False,
        help="Leave a page to look at: report.html.",
        show_default=False,
        rich_help_panel="output",
    ),
]


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Runs, learners, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The page. [report.html in the one DIR]")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    each: Annotated[bool, typer.Option("--each", help="A page of every run, too, in its folder.")] = False,
    mixed: Mixed = False,
    mixed_fingerprints: MixedFingerprints = False,
    baseline: Baseline = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
) -> None:
    """Make one page to look at: of a run or a learner, or of several runs side by side."""
    from everlora.report.write import Allowed, write_report

    place = write_report(folders, out, Allowed(mixed, mixed_fingerprints, baseline), each=each, questions=True)
    if not quiet:
        say(f"written to {place} ({place.stat().st_size / 1000:,.0f} kB)")
    if open_:
        typer.launch(place.resolve().as_uri())


def leave_report(folder: Path, *, wanted: bool, each: bool = False) -> None:
    """Leave the page of what a command has made in its folder, if that is wanted, possible and cheap.

    The command has done its work: whatever is wrong with the page is a line on stderr.
    """
    if not wanted or any(find_spec(name) is None for name in NEEDED):
        return
    if sum(file.stat().st_size for file in folder.glob("**/predictions.jsonl")) > MOST_BYTES:
        say(f"a page of so many answers takes a while: everlora report {folder}", err=True)
        return
    from everlora.report.write import write_report

    try:
        say(f"look at it: {write_report([folder], each=each)}", err=True)
    except EverloraError as error:
        say(f"no page was made: {error}", err=True)


def figures(plugin: Plugin = None, as_json: Json = False) -> None:
    """List the figures of papers that recorded runs can be drawn as."""
    from everlora.report.figures import figures as known

    if as_json:
        plain = [
            {"name": one.name, "paper": one.paper, "where": one.where, "needs": one.needs} for one in known().values()
        ]
        say(json.dumps(plain, ensure_ascii=False))
        return
    from everlora.cli.tables import show, table

    show(
        table(
            "", ("figure", "paper", "theirs", "takes"), ((f.name, f.paper, f.where, f.needs) for f in known().values())
        )
    )


def figure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which: everlora figures lists them.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of them (of a sweep).")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="svg, png, csv, or html with all three. [NAME.svg]"),
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
) -> None:
    """Draw a paper's figure from runs of one's own."""
    from everlora.report.figures import named
    from everlora.report.save import check_form, save_figure

    wanted = named(name)
    place = out or Path(f"{name}.svg")
    check_form(place)
    save_figure(wanted, wanted.draw(runs), place)
    if not quiet:
        say(f"written to {place}")
