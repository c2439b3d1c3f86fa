"""Writes the page of what folders hold: of a run, or of a comparison where they hold several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path

from everlora.analysis.answers import ScoredRun, find, read
from everlora.analysis.recorded import recorded
from everlora.analysis.tables import compare
from everlora.archive.atomic import explained, write_text
from everlora.benchmarks import benchmarks
from everlora.core.errors import ConfigError, FolderError
from everlora.literature.reported import published_rows
from everlora.report.analyses import of_runs
from everlora.report.comparison_page import comparison_page
from everlora.report.forms import Papers
from everlora.report.page import Page, render
from everlora.report.questions import questions_of
from everlora.report.read import grouped
from everlora.report.run_page import run_page

PAGE = "report.html"
UNFINISHED = "is not finished"


@dataclass(frozen=True)
class Allowed:
    """Holds what may differ between runs of one page, and what they are set against, see `everlora compare`."""

    mixed: bool = False
    mixed_fingerprints: bool = False
    baseline: str | None = None


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    allowed: Allowed = Allowed(),
    *,
    each: bool = False,
    questions: bool = False,
) -> Path:
    """Write a page and return where it is: of one run in its folder, of a folder of runs in that folder.

    Args:
        paths: folders of runs, or folders of them.
        out: another file.
        allowed: what may differ between runs.
        each: write a page of every run, too, in its folder.
        questions: read the texts of test rows again, where they are at hand.

    Raises:
        FolderError: no run, or a damaged one.
        ConfigError: runs that cannot stand in one table, or a package is missing.
    """
    runs = find(paths)
    if out is not None and out.is_dir():
        raise ConfigError(f"{out} is a folder; --out names the file of the page")
    if out is None and len(paths) > 1:
        raise ConfigError("name the file of a page about several folders: --out report.html")
    place = out or paths[0] / PAGE
    if len(runs) == 1:
        return _write(place, _of_run(runs[0], questions))
    for run in runs if each else ():
        _write(run / PAGE, _of_run(run, questions))
    return _write(place, _compared(runs, allowed, place.parent))


def _of_run(path: Path, questions: bool) -> Page:
    run = recorded(path)
    return run_page(run, questions_of(run) if questions else {})


def _write(place: Path, page: Page) -> Path:
    html = render(page)
    with explained(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, html)
    return place


def _compared(paths: Sequence[Path], allowed: Allowed, folder: Path) -> Page:
    """Return the page of several runs, for a ``folder``; those that are not at their end are named."""
    found: list[ScoredRun] = []
    left_out = []
    for path in paths:
        try:
            found.append(read(path))
        except FolderError as error:
            if UNFINISHED not in str(error):
                raise
            left_out.append(f"Left out: {error}")
    if not found:
        raise FolderError(f"none of {len(paths)} runs is finished; everlora report {paths[0]} shows one as it stands")
    comparison = compare(
        found, mixed=allowed.mixed, mixed_fingerprints=allowed.mixed_fingerprints, baseline=allowed.baseline
    )
    papers: Papers = ()
    if comparison.protocol is not None:
        name = str(comparison.protocol.benchmark)
        known = [info for info in benchmarks() if info.name == name]
        papers = published_rows(found, comparison.sections, known[0].orders, name) if known else ()
    linked = [run.path for run in found if (run.path / PAGE).is_file()]
    pages = {path: relpath(path.resolve() / PAGE, folder.resolve()) for path in linked}
    analyses = of_runs([run.path for run in found], grouped(comparison, found)) if comparison.protocol else None
    return comparison_page(found, comparison, papers, left_out, pages, analyses)
