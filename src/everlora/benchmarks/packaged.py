"""Registers the benchmarks that come with everlora: every YAML file of this folder is one, of the file's name."""

from __future__ import annotations

from pathlib import Path

from everlora.benchmarks.read import read_benchmark
from everlora.core.benchmark import BENCHMARKS

FIRST = ("builtin", "standard", "long", "trace", "superni", "vision-digits", "vision-mnist")
"""Those that are listed first: the one that needs no data, then text, then pictures; the others follow by name."""


def _place(path: Path) -> tuple[int, str]:
    return (FIRST.index(path.stem) if path.stem in FIRST else len(FIRST), path.stem)


for _path in sorted(Path(__file__).parent.glob("*.yaml"), key=_place):
    BENCHMARKS.add(_path.stem, read_benchmark(_path), module=__name__)
