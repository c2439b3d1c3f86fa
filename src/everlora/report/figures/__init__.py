"""Draws figures of papers from recorded runs: one file each, which registers itself; a new figure is a new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from everlora.core.errors import ConfigError, nearest
from everlora.report.page import Figure

Draw = Callable[[Sequence[Path]], Figure]
Reads = Literal["scores", "weights", "model"]
"""What a figure is drawn from: records alone, the adapters too, or the base model and rows, which take a while."""


@dataclass(frozen=True)
class PaperFigure:
    """Holds a figure that can be drawn.

    Attributes:
        name: of the command.
        paper, where: whose figure it is, and which of theirs.
        title: what is seen.
        needs: which runs it takes.
        draw: draws it from the folders of runs.
        reads: what of them it reads.
        single_run: whether it says something of a single run.
    """

    name: str
    paper: str
    where: str
    title: str
    needs: str
    draw: Draw
    reads: Reads = "scores"
    single_run: bool = False


_KNOWN: dict[str, PaperFigure] = {}


def figure(
    name: str, *, paper: str, where: str, title: str, needs: str, reads: Reads = "scores", single_run: bool = False
) -> Callable[[Draw], Draw]:
    """Register a function that draws a figure, under a name."""

    def register(draw: Draw) -> Draw:
        _KNOWN[name] = PaperFigure(name, paper, where, title, needs, draw, reads, single_run)
        return draw

    return register


def figures() -> dict[str, PaperFigure]:
    """Return all figures, by name: those of this folder, and those that plug-ins have registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_KNOWN.items()))


def named(name: str) -> PaperFigure:
    """Return the figure of a name.

    Raises:
        ConfigError: there is none.
    """
    known = figures()
    if name not in known:
        raise ConfigError(f"unknown figure {name!r}{nearest(name, known)} (everlora figures lists them)")
    return known[name]
