"""Sets finished runs side by side: the command ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everlora.cli.common import Baseline, Json, Mixed, MixedFingerprints, Plugin, say
from everlora.report.columns import COLUMNS_HELP, chosen
from everlora.report.forms import FORMAT_HELP, Format, Papers, written

if TYPE_CHECKING:
    from everlora.analysis.answers import ScoredRun
    from everlora.analysis.comparison import Section
    from everlora.literature.reported import PublishedRow


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of them (of a sweep).")],
    format_: Annotated[Format, typer.Option("--format", metavar="FORM", help=FORMAT_HELP)] = "table",
    mixed: Mixed = False,
    mixed_fingerprints: MixedFingerprints = False,
    baseline: Baseline = None,
    with_papers: Annotated[
        bool, typer.Option("--with-papers", help="Add what papers print for these orders.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, metavar="N", help="Resamples of the bootstrap.")] = 2000,
    bootstrap_seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap.")] = 0,
    columns: Annotated[str | None, typer.Option("--columns", metavar="A,B", help=COLUMNS_HELP)] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Set runs side by side: mean and 95 % interval of each method over its runs, and what cannot be told apart."""
    from everlora.analysis.answers import find, read
    from everlora.analysis.tables import compare as side_by_side
    from everlora.core.errors import ConfigError, FolderError

    names = chosen(columns)
    found = []
    for path in find(runs):
        try:
            found.append(read(path))
        except FolderError as error:
            if "is not finished" not in str(error):
                raise
            say(f"left out: {error}", err=True)
    comparison = side_by_side(
        found,
        resamples=resamples,
        seed=bootstrap_seed,
        mixed=mixed,
        mixed_fingerprints=mixed_fingerprints,
        baseline=baseline,
    )
    papers: Papers = ()
    if with_papers:
        if comparison.protocol is None:
            raise ConfigError("papers' numbers stand beside runs of one protocol; leave --mixed out, or --with-papers")
        papers = _papers(found, comparison.sections)
    say(written(comparison, papers, "json" if as_json else format_, names))


def _papers(found: Sequence[ScoredRun], sections: Sequence[Section]) -> list[PublishedRow]:
    """Return what papers print for the orders that were run.

    Raises:
        ConfigError: no paper at hand has numbers for them.
    """
    from everlora.benchmarks import benchmarks
    from everlora.core.errors import ConfigError
    from everlora.literature.reported import published_rows

    name = str(found[0].protocol.benchmark)
    infos = [info for info in benchmarks() if info.name == name]
    papers = published_rows(found, sections, infos[0].orders, name) if infos else []
    if not papers:
        raise ConfigError(f"no paper at hand has numbers for these orders of {name!r}; leave --with-papers out")
    return papers
