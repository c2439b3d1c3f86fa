"""Defines the table of a comparison as typed values, for whoever prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from everlora.analysis.answers import ComparedProtocol
from everlora.analysis.compare import Interval
from everlora.archive.records import Fingerprint
from everlora.core.plain import Json, JsonObject


@dataclass(frozen=True)
class Row:
    """Holds one method of a table.

    Attributes:
        method: its label.
        seeds, orders: among its runs, which are ``runs`` many, in ``folders``.
        by_order: mean OA of each order.
        by_task: mean score of each task after the last one.
        protocols, fingerprints: hashes.
        metrics: mean and interval by metric; None where it is undefined.
        ability: mean change of general ability by measure.
        difference: paired, from the reference, over the ``common`` runs that both have; None of all that follow where
            there is no reference, or nothing in common.
        p: of this difference; ``p_corrected`` over methods, see `everlora.analysis.significance`.
        test: what p is of: other runs and rows, or other rows alone.
        detectable: the smallest difference that would be told apart.
        alike: that nothing tells the two apart.
    """

    method: str
    seeds: Sequence[int]
    orders: Sequence[str]
    runs: int
    by_order: Mapping[str, float]
    protocols: Sequence[str]
    fingerprints: Sequence[str]
    folders: Sequence[str]
    metrics: Mapping[str, Interval | None]
    ability: Mapping[str, float]
    difference: Interval | None = None
    common: int | None = None
    p: float | None = None
    p_corrected: float | None = None
    test: str | None = None
    detectable: float | None = None
    alike: bool | None = None
    by_task: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> JsonObject:
        plain = asdict(self)
        return {**plain.pop("metrics"), **plain}


@dataclass(frozen=True)
class Section:
    """Holds methods that may use the same; their rows are set against ``reference``, if there is one."""

    group: str
    reference: str | None
    rows: Sequence[Row]


@dataclass(frozen=True)
class Comparison:
    """Holds the table of runs: one row per method over its seeds and orders, in sections.

    Attributes:
        protocol: of all runs; None where they differ.
        fingerprints: by hash; None of an older everlora, which did not say.
        resamples, seed: of the bootstrap.
        metric: by which methods are set against others.
        baseline: the method that all others are set against; None for each section's best.
        sections: those that hold a method.
    """

    protocol: ComparedProtocol | None
    fingerprints: Mapping[str, Fingerprint | None]
    resamples: int
    seed: int
    metric: str
    baseline: str | None
    sections: Sequence[Section]

    def as_json(self) -> JsonObject:
        """Return the object that ``everlora compare --json`` prints."""
        sections: list[Json] = [
            {"group": one.group, "reference": one.reference, "rows": [row.as_json() for row in one.rows]}
            for one in self.sections
        ]
        return {
            "protocol": self.protocol.model_dump(mode="json") if self.protocol else None,
            "fingerprints": {k: one.model_dump(mode="json") if one else {} for k, one in self.fingerprints.items()},
            "resamples": self.resamples,
            "seed": self.seed,
            "metric": self.metric,
            "baseline": self.baseline,
            "sections": sections,
        }
