"""How scores were made, row by row: a run that was resumed elsewhere, or on other versions, shows it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

SEEN = "batch_invariant"
"""What was seen and not set: whether the batch changed answers. It is no part of the hash."""


def digest(fingerprint: Mapping[str, Any]) -> str:
    """The short hash of a fingerprint."""
    kept = {key: value for key, value in fingerprint.items() if key != SEEN}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def of_rows(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fingerprints of the rows of a matrix.

    Args:
        done: what is committed of each stage, in order.

    Returns:
        ``rows``: the hash of each row, or None of one that has none; ``of``: fingerprints by hash, whose
        ``batch_invariant`` is False if the batch was ever seen to change an answer.
    """
    prints = [facts.get("fingerprint") for facts in done]
    found: dict[str, dict[str, Any]] = {}
    for one in filter(None, prints):
        before = found.setdefault(digest(one), dict(one))
        seen = {before.get(SEEN), one.get(SEEN)}
        before[SEEN] = next((value for value in (False, True) if value in seen), None)
    return {"rows": [digest(one) if one else None for one in prints], "of": found}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What tells two fingerprints apart, in words: ``weights bfloat16 and float32``."""
    if not one or not other:
        return ["one of them, of an older everlora, does not say how"]
    a, b = _flat(one), _flat(other)
    return [f"{key} {a.get(key)} and {b.get(key)}" for key in sorted({*a, *b} - {SEEN}) if a.get(key) != b.get(key)]


def _flat(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fingerprint.items() if key != "versions"} | fingerprint.get("versions", {})
