"""How general ability changed over a life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def change(content: Mapping[str, Any]) -> dict[str, float]:
    """By measure, after the last task minus before the first, of what matrix.json says; nothing if not measured."""
    steps = (content.get("general") or {}).get("delta") or [None]
    return dict(steps[-1] or {})


def mean_change(changes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over runs, of every measure that all of them have."""
    shared = [name for name in changes[0] if all(name in other for other in changes)]
    return {name: sum(other[name] for other in changes) / len(changes) for name in shared}
