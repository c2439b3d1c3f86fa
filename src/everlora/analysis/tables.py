"""Runs set side by side: which may be, in which sections, and how methods differ from the best or from a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everlora.analysis.ability import mean_change
from everlora.analysis.answers import ScoredRun
from everlora.analysis.compare import METRICS, RESAMPLES, Draws, Estimate, Interval, Unit, estimate, gap
from everlora.analysis.significance import ALPHA, corrected, detectable, looked_at, paired
from everlora.archive.fingerprints import differing
from everlora.core.errors import ConfigError, nearest

GROUPS = ("replay-free", "replay", "task id")


def compare(
    runs: Sequence[ScoredRun],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    mixed: bool = False,
    mixed_fingerprints: bool = False,
    metric: str = "oa",
    baseline: str | None = None,
) -> dict[str, Any]:
    """The table of runs: one row per method over its seeds and orders, in sections.

    Args:
        runs: in any order.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        mixed: allow runs of different protocols; methods are then not set against one another.
        mixed_fingerprints: allow scores that were made in different ways (precision, versions).
        metric: by which methods are set against others.
        baseline: a method of the table that all others are set against; without one, each section's best.

    Returns:
        ``protocol`` (or None), ``fingerprints`` by hash, ``resamples``, ``seed``, ``metric``, ``baseline``, and
        ``sections``: ``group``, ``reference`` (the method that the rows are set against, or None), and ``rows`` with
        ``method``, ``seeds``, ``orders``, ``runs``, ``by_order`` (mean OA), ``protocols`` and ``fingerprints``
        (hashes), ``folders``, the metrics (``mean``, ``low``, ``high``) and, against the reference, ``difference``,
        ``common`` (runs that both have), ``p``, ``p_corrected`` (over methods, see `everlora.analysis.significance`),
        ``test`` (what p was asked of), ``detectable`` and ``alike``: that nothing tells the two apart.

    Raises:
        ConfigError: runs of different protocols, one run twice, or no baseline of that name.
    """
    if not runs:
        raise ConfigError("there is no finished run to be compared")
    agreed, prints = _agreed(runs, mixed), _scored_alike(runs, mixed_fingerprints)
    sections: list[dict[str, Any]] = []
    found: dict[str, Estimate] = {}
    for group in GROUPS:
        grouped = _grouped([run for run in runs if run.group == group])
        own = {
            label: estimate([r.answers for r in of], resamples=resamples, seed=seed) for label, of in grouped.items()
        }
        found |= own
        rows = {label: _row(label, of, own[label]) for label, of in grouped.items()}
        if rows:
            sections.append({"group": group, "reference": _best(own, metric), "rows": rows})
    if baseline is not None:
        baseline = _named(baseline, found)
    if agreed is not None:
        _set_against(sections, found, metric, baseline)
    for section in sections:
        section["reference"] = None if agreed is None else baseline or section["reference"]
        section["rows"] = sorted(section["rows"].values(), key=lambda row: _place(row, baseline))
    how = {"resamples": resamples, "seed": seed, "metric": metric, "baseline": baseline}
    return {"protocol": agreed, "fingerprints": prints, **how, "sections": sections}


def _named(baseline: str, known: Mapping[str, Estimate]) -> str:
    """The label of a baseline: as it stands in the table, or the one method of that name with any settings."""
    like = [label for label in known if label == baseline] or [
        label for label in known if label.partition("(")[0].partition(" [")[0] == baseline
    ]
    if len(like) != 1:
        raise ConfigError(
            f"the baseline {baseline!r} is {'several methods' if like else 'no method'} of this table"
            f"{nearest(baseline, known)}; methods: {', '.join(sorted(like or known))}"
        )
    return like[0]


def _place(row: dict[str, Any], baseline: str | None) -> tuple[bool, str]:
    """Those first that nothing tells from the best, then the others; by name, for that is all that is known."""
    later = row["alike"] is False if baseline is None else row["method"] != baseline
    return later, row["method"]


def _best(found: Mapping[str, Estimate], metric: str) -> str | None:
    known = {label: mean for label in found if (mean := found[label].means[metric]) is not None}
    return max(sorted(known), key=lambda label: known[label]) if known else None


def _set_against(
    sections: Sequence[dict[str, Any]], found: Mapping[str, Estimate], metric: str, baseline: str | None
) -> None:
    """Write into each row how it differs from its reference, with p corrected over the methods."""
    for family in [list(sections)] if baseline else [[section] for section in sections]:
        reference = baseline or family[0]["reference"]
        rows = {label: row for section in family for label, row in section["rows"].items()}
        if reference is None:
            continue
        others = [label for label in rows if label != reference]
        known = {label: gap(found[label], found[reference], metric) for label in others}
        gaps = {label: one for label, one in known.items() if one is not None}
        tests = {
            label: paired(one.each, one.rows, _on([found[name] for name in rows], one.units, metric))
            for label, one in gaps.items()
        }
        sure = corrected(tests, chosen=baseline is None)
        if (own := gap(found[reference], found[reference], metric)) is not None:
            rows[reference] |= {"difference": _plain(own.interval), "alike": True}
        for label, one in tests.items():
            rows[label] |= {
                "difference": _plain(gaps[label].interval),
                "common": one.runs,
                "p": one.p,
                "p_corrected": sure[label],
                "test": "runs and rows" if one.enough else "rows",
                "detectable": detectable(one, looked_at(len(tests), chosen=baseline is None)),
                "alike": not (one.enough and sure[label] <= ALPHA),
            }


def _on(methods: Sequence[Estimate], units: Sequence[Unit], metric: str) -> Draws:
    """Scores of those methods that have all of these runs, (methods, runs)."""
    known = [one for one in methods if one.means[metric] is not None and set(units) <= set(one.units)]
    return np.stack([one.each[metric][[one.units.index(unit) for unit in units]] for one in known])


def _agreed(runs: Sequence[ScoredRun], mixed: bool) -> dict[str, Any] | None:
    """The protocol of all runs, or None if they differ and may."""
    first = min(runs, key=lambda run: str(run.path))
    for run in runs:
        differing = [key for key, value in run.protocol.items() if value != first.protocol[key]]
        if differing:
            if mixed:
                return None
            raise ConfigError(
                f"{first.path} and {run.path} are of different protocols ({', '.join(differing)}), so their figures "
                f"cannot be compared; leave one out, or pass --mixed to see them side by side all the same"
            )
    return first.protocol


def _scored_alike(runs: Sequence[ScoredRun], mixed: bool) -> dict[str, dict[str, Any]]:
    """The fingerprints of all runs, by hash.

    Raises:
        ConfigError: there are several, and they may not differ.
    """
    prints: dict[str, dict[str, Any]] = {}
    owners: dict[str, Path] = {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        for key, facts in run.fingerprints.items():
            prints.setdefault(key, facts)
            owners.setdefault(key, run.path)
    if len(prints) > 1 and not mixed:
        (first, a), (second, b) = list(prints.items())[:2]
        whose = " and ".join(dict.fromkeys(map(str, (owners[first], owners[second]))))
        raise ConfigError(
            f"scores of {whose} were made in different ways ({', '.join(differing(a, b))}); score them alike, or pass "
            f"--mixed-fingerprints to see them side by side all the same"
        )
    return prints


def _grouped(runs: Sequence[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Runs of one method over seeds, by a label; what is told apart by more than its name says by what."""
    kinds: dict[str, list[ScoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.method, run.answers.unit, str(run.path))):
        known = json.dumps([run.composition, run.training, run.protocol], sort_keys=True, default=str)
        kinds.setdefault(known, []).append(run)
    labels: dict[str, list[ScoredRun]] = {}
    for own in kinds.values():
        seen: dict[tuple[str, int], Path] = {}
        for run in own:
            if run.answers.unit in seen:
                raise ConfigError(
                    f"{seen[run.answers.unit]} and {run.path} are the same run of {run.method!r} (seed "
                    f"{run.answers.seed}); name one of them"
                )
            seen[run.answers.unit] = run.path
        namesakes = [other[0] for other in kinds.values() if other[0].method == own[0].method]
        told = _differing(own[0], namesakes)
        labels[own[0].method + (f" [{told}]" if told else "")] = own
    return labels


def _differing(one: ScoredRun, others: Sequence[ScoredRun]) -> str:
    """The settings of ``one`` that are not the same in all of ``others``."""
    flat = [_flat({"part": o.composition, **o.training, **o.protocol}) for o in (one, *others)]
    told = {key: value for key, value in flat[0].items() if any(other.get(key) != value for other in flat[1:])}
    # Digests of rows, where no setting says why they differ.
    settings = {key: value for key, value in told.items() if not key.startswith(".rows.")}
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in (settings or told).items())


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, list):
        values = {str(k): value for k, value in enumerate(values)}
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: value for name, one in values.items() for key, value in _flat(one, f"{prefix}.{name}").items()}


def _row(label: str, runs: Sequence[ScoredRun], found: Estimate) -> dict[str, Any]:
    return {
        "method": label,
        "seeds": list(found.seeds),
        "orders": sorted({order for order, _ in found.units}),
        "runs": len(found.units),
        "by_order": _by_order(found),
        "protocols": sorted({run.hash for run in runs}),
        "fingerprints": sorted({key for run in runs for key in run.fingerprints}),
        "folders": [str(run.path) for run in sorted(runs, key=lambda run: run.answers.unit)],
        **{metric: _plain(found.interval(metric)) for metric in METRICS},
        **dict.fromkeys(("difference", "common", "p", "p_corrected", "test", "detectable", "alike")),
        "ability": mean_change([run.ability for run in runs]),
    }


def _by_order(found: Estimate) -> dict[str, float]:
    """Mean OA of each order; empty where it is undefined."""
    values: dict[str, list[float]] = {}
    for (order, _), value in zip(found.units, found.each["oa"], strict=False):
        values.setdefault(order, []).append(float(value))
    return {order: sum(some) / len(some) for order, some in values.items()}


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"mean": interval.mean, "low": interval.low, "high": interval.high}
