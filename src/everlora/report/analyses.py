"""Makes the part of a page that shows papers' analyses: those of their figures that its runs can be drawn as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from everlora.core.errors import EverloraError
from everlora.report.figures import PaperFigure, figures
from everlora.report.page import Figure, Section
from everlora.report.read import Compared, sharing

MOST_BYTES = 64_000_000
"""Size of all adapters up to which their updates are multiplied out for a page."""
COMMAND = "everlora figures"


def of_run(path: Path) -> Section | None:
    """Return the analyses that say something of a single run; None where there are none."""
    return _section([one for one in figures().values() if one.single_run], [path], [path])


def of_runs(paths: Sequence[Path], known: Compared) -> Section | None:
    """Return the analyses of several runs of one protocol, whose table is ``known``; none that load a model."""
    with sharing(paths, known):
        wanted = [one for one in figures().values() if one.reads != "model"]
        return _section(wanted, paths, [runs[0].path for runs in known[1].values()])


def _section(wanted: Sequence[PaperFigure], paths: Sequence[Path], firsts: Sequence[Path]) -> Section | None:
    """Draw what can be drawn of ``paths``; what reads weights, of ``firsts``, if they are small."""
    small = sum(file.stat().st_size for path in firsts for file in _adapters(path)) <= MOST_BYTES
    drawn = [
        _drawn(one, firsts if one.reads == "weights" else paths) for one in wanted if small or one.reads != "weights"
    ]
    found = [one for one in drawn if one is not None]
    if not found:
        return None
    return Section(
        "analyses",
        "The papers' analyses",
        text=["As papers draw them, from the runs of this page. Others need runs that differ in what they vary:"],
        figures=found,
        commands=[("all that can be drawn", COMMAND)],
    )


def _adapters(path: Path) -> list[Path]:
    return list(path.glob("tasks/*/adapter_model.safetensors"))


def _drawn(one: PaperFigure, paths: Sequence[Path]) -> Figure | None:
    """Return a figure with its source; None where these runs are not what it takes."""
    try:
        drawn = one.draw(paths)
    except EverloraError:
        return None
    return replace(drawn, name=f"paper-{drawn.name}", caption=f"{drawn.caption} As in {one.paper}: {one.where}.")
