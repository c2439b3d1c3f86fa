"""Records how scores were made, row by row: a run that was resumed elsewhere, or on other versions, shows it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from everlora.archive.commits import Commit
from everlora.archive.records import Fingerprint
from everlora.archive.results import Fingerprints
from everlora.core.plain import JsonObject


def digest(fingerprint: Fingerprint) -> str:
    """Return the short hash of a fingerprint.

    Whether the batch changed answers is no part of it: that was measured, and not set.
    """
    settings = fingerprint.model_dump(mode="json", exclude={"batch_invariant"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def fingerprints_of(committed: Sequence[Commit]) -> Fingerprints:
    """Return the fingerprints of the rows of a matrix, of the stages in order.

    A fingerprint's ``batch_invariant`` is False if the batch was ever found to change an answer.
    """
    known = [commit.fingerprint for commit in committed]
    found: dict[str, Fingerprint] = {}
    for one in filter(None, known):
        before = found.setdefault(digest(one), one)
        flags = {before.batch_invariant, one.batch_invariant}
        invariant = next((value for value in (False, True) if value in flags), None)
        found[digest(one)] = before.model_copy(update={"batch_invariant": invariant})
    return Fingerprints(rows=[digest(one) if one else None for one in known], of=found)


def differing(one: Fingerprint | None, other: Fingerprint | None) -> list[str]:
    """Tell two fingerprints apart in words: ``weights bfloat16 and float32``; None is of an older everlora."""
    if one is None or other is None:
        return ["one of them, of an older everlora, does not say how"]
    a, b = _flat(one), _flat(other)
    return [f"{key} {a.get(key)} and {b.get(key)}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _flat(fingerprint: Fingerprint) -> JsonObject:
    plain = fingerprint.model_dump(mode="json", exclude={"batch_invariant", "versions"})
    return plain | fingerprint.versions
