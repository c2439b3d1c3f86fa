"""Names the settings in which two runs differ, for whoever is refused because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from everlora.archive.identity import NOT_IDENTIFYING, SPLIT, whole_batch
from everlora.core.plain import JsonObject

ROWS = "rows of a step, over all processes"
NOTED = ("id", "origin", "protocol")
"""Entries of run.yaml that are no difference by themselves: they follow from the others."""


def differing_settings(a: JsonObject, b: JsonObject) -> list[str]:
    """Return the names of the innermost entries of the record ``a`` that ``b`` does not share, each of them once."""
    return _differing(_comparable(a), _comparable(b))


def _comparable(record: JsonObject) -> JsonObject:
    """Return a record of a run with the rows of a step under a name of their own, however they are split."""
    settings = record.get("settings")
    train = settings.get("train") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(train, dict):
        return record
    found = dict(whole_batch(train, int(str(record.get("processes", 1)))))
    rows = {ROWS: [found.pop(name, None) for name in SPLIT]}
    shown = {key: value for key, value in record.items() if key != "processes"}
    return {**shown, "settings": {**settings, "train": {**found, **rows}}}


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Return the names of the innermost entries of ``a`` that ``b`` does not share, each of them once."""
    names: list[str] = []
    for key, value in a.items():
        other = b.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            names += _differing(value, other)
        elif key == "penalties" and isinstance(value, list) and isinstance(other, list) and _same_parts(value, other):
            for this, that in zip(value, other, strict=True):
                names += _differing(this, that)  # one method with two strengths: "lam" says more than "penalties"
        elif value != other and key not in (*NOT_IDENTIFYING, *NOTED):
            names.append("method" if key == "name" else key)
    return list(dict.fromkeys(names))


def _same_parts(these: Sequence[object], those: Sequence[object]) -> bool:
    first, second = ([p.get("part") if isinstance(p, Mapping) else None for p in parts] for parts in (these, those))
    return first == second
