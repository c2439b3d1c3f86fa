"""Compares general ability before the first task with that after the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from everlora.archive.results import MatrixRecord


def change(results: MatrixRecord) -> dict[str, float]:
    """Return by measure what a run has changed; nothing if that was not measured."""
    steps = results.general.delta if results.general else []
    return dict((steps[-1] if steps else None) or {})


def mean_change(changes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average over runs every measure that all of them have."""
    shared = [name for name in changes[0] if all(name in other for other in changes)]
    return {name: sum(other[name] for other in changes) / len(changes) for name in shared}
