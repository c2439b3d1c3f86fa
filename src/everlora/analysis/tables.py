"""Makes the table of a comparison: which runs may stand in it, in which sections, and how methods differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from everlora.analysis.ability import mean_change
from everlora.analysis.answers import ComparedProtocol, ScoredRun
from everlora.analysis.compare import METRICS, RESAMPLES, Draws, Estimate, Unit, estimate, gap
from everlora.analysis.comparison import Comparison, Row, Section
from everlora.analysis.significance import ALPHA, corrected, detectable, looked_at, paired
from everlora.archive.fingerprints import differing
from everlora.archive.records import Fingerprint
from everlora.core.errors import ConfigError, nearest
from everlora.core.plain import Json, JsonObject

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
) -> Comparison:
    """Make the table of runs.

    Args:
        runs: in any order.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        mixed: allow runs of different protocols; methods are then not set against one another.
        mixed_fingerprints: allow scores that were made in different ways (precision, versions).
        metric: by which methods are set against others.
        baseline: a method of the table that all others are set against; without one, each section's best.

    Raises:
        ConfigError: runs of different protocols, one run twice, or no baseline of that name.
    """
    if not runs:
        raise ConfigError("there is no finished run to be compared")
    agreed, prints = _agreed(runs, mixed), _scored_alike(runs, mixed_fingerprints)
    sections: list[Section] = []
    found: dict[str, Estimate] = {}
    for group in GROUPS:
        grouped = _grouped([run for run in runs if run.group == group])
        own = {
            label: estimate([r.answers for r in of], resamples=resamples, seed=seed) for label, of in grouped.items()
        }
        found |= own
        if rows := [_row(label, of, own[label]) for label, of in grouped.items()]:
            sections.append(Section(group, _best(own, metric), rows))
    if baseline is not None:
        baseline = _named(baseline, found)
    if agreed is None:  # then nothing is set against anything
        sections = [replace(section, reference=None) for section in sections]
    else:
        sections = _with_differences(sections, found, metric, baseline)
    sections = [replace(one, rows=sorted(one.rows, key=lambda row: _place(row, baseline))) for one in sections]
    return Comparison(agreed, prints, resamples, seed, metric, baseline, sections)


def _named(baseline: str, known: Mapping[str, Estimate]) -> str:
    """Find the label of a baseline: as it stands in the table, or the one method of that name with any settings."""
    like = [label for label in known if label == baseline] or [
        label for label in known if label.partition("(")[0].partition(" [")[0] == baseline
    ]
    if len(like) != 1:
        raise ConfigError(
            f"the baseline {baseline!r} is {'several methods' if like else 'no method'} of this table"
            f"{nearest(baseline, known)}; methods: {', '.join(sorted(like or known))}"
        )
    return like[0]


def _place(row: Row, baseline: str | None) -> tuple[bool, str]:
    """Return a key that puts first what nothing tells from the best; the rest stands by name."""
    later = row.alike is False if baseline is None else row.method != baseline
    return later, row.method


def _best(found: Mapping[str, Estimate], metric: str) -> str | None:
    known = {label: mean for label in found if (mean := found[label].means[metric]) is not None}
    return max(sorted(known), key=lambda label: known[label]) if known else None


def _with_differences(
    sections: Sequence[Section], found: Mapping[str, Estimate], metric: str, baseline: str | None
) -> list[Section]:
    """Add to each row how it differs from its reference, with p corrected over the methods."""
    changed: dict[str, Row] = {}
    for family in [list(sections)] if baseline else [[section] for section in sections]:
        reference = baseline or family[0].reference
        if reference is not None:
            rows = [row for section in family for row in section.rows]
            changed |= _against(reference, rows, found, metric, chosen=baseline is None)
    return [
        replace(one, reference=baseline or one.reference, rows=[changed.get(row.method, row) for row in one.rows])
        for one in sections
    ]


def _against(
    reference: str, rows: Sequence[Row], found: Mapping[str, Estimate], metric: str, chosen: bool
) -> dict[str, Row]:
    """Return rows by label, with how each differs from ``reference``, which was ``chosen`` as the best or named."""
    labelled = {row.method: row for row in rows}
    gaps = {
        label: difference
        for label in labelled
        if label != reference and (difference := gap(found[label], found[reference], metric)) is not None
    }
    tests = {
        label: paired(one.each, one.rows, _on([found[name] for name in labelled], one.units, metric))
        for label, one in gaps.items()
    }
    sure = corrected(tests, chosen=chosen)
    if (own := gap(found[reference], found[reference], metric)) is not None:
        labelled[reference] = replace(labelled[reference], difference=own.interval, alike=True)
    for label, one in tests.items():
        labelled[label] = replace(
            labelled[label],
            difference=gaps[label].interval,
            common=one.runs,
            p=one.p,
            p_corrected=sure[label],
            test="runs and rows" if one.enough else "rows",
            detectable=detectable(one, looked_at(len(tests), chosen=chosen)),
            alike=not (one.enough and sure[label] <= ALPHA),
        )
    return labelled


def _on(methods: Sequence[Estimate], units: Sequence[Unit], metric: str) -> Draws:
    """Return the scores of those methods that have all of these runs, (methods, runs)."""
    known = [one for one in methods if one.means[metric] is not None and set(units) <= set(one.units)]
    return np.stack([one.each[metric][[one.units.index(unit) for unit in units]] for one in known])


def _agreed(runs: Sequence[ScoredRun], mixed: bool) -> ComparedProtocol | None:
    """Return the protocol of all runs, or None if they differ and may."""
    first = min(runs, key=lambda run: str(run.path))
    for run in runs:
        if run.protocol != first.protocol:
            if mixed:
                return None
            names = [
                n for n in ComparedProtocol.model_fields if getattr(run.protocol, n) != getattr(first.protocol, n)
            ]
            raise ConfigError(
                f"{first.path} and {run.path} are of different protocols ({', '.join(names)}), so their figures "
                f"cannot be compared; leave one out, or pass --mixed to see them side by side all the same"
            )
    return first.protocol


def _scored_alike(runs: Sequence[ScoredRun], mixed: bool) -> dict[str, Fingerprint | None]:
    """Return the fingerprints of all runs, by hash.

    Raises:
        ConfigError: there are several, and they may not differ.
    """
    prints: dict[str, Fingerprint | None] = {}
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
    """Group the runs of one method over seeds, by a label; where the name is not enough, it says what differs."""
    kinds: dict[str, list[ScoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.method, run.answers.unit, str(run.path))):
        known = json.dumps([run.composition.plain(), run.training, run.protocol.plain()], sort_keys=True)
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
        unlike = _differing(own[0], namesakes)
        labels[own[0].method + (f" [{unlike}]" if unlike else "")] = own
    return labels


def _differing(one: ScoredRun, others: Sequence[ScoredRun]) -> str:
    """Return the settings of ``one`` that are not the same in all of ``others``."""
    flat = [
        _flat({"part": o.composition.plain(), **o.training, **o.protocol.model_dump(mode="json")})
        for o in (one, *others)
    ]
    unlike = {key: value for key, value in flat[0].items() if any(other.get(key) != value for other in flat[1:])}
    # Digests of rows, where no setting says why they differ.
    settings = {key: value for key, value in unlike.items() if not key.startswith(".rows.")}
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in (settings or unlike).items())


def _flat(values: Json, prefix: str = "") -> JsonObject:
    if isinstance(values, list):
        values = {str(k): value for k, value in enumerate(values)}
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: value for name, one in values.items() for key, value in _flat(one, f"{prefix}.{name}").items()}


def _row(label: str, runs: Sequence[ScoredRun], found: Estimate) -> Row:
    return Row(
        method=label,
        seeds=list(found.seeds),
        orders=sorted({order for order, _ in found.units}),
        runs=len(found.units),
        by_order=_by_order(found),
        by_task=_by_task(runs),
        protocols=sorted({run.hash for run in runs}),
        fingerprints=sorted({key for run in runs for key in run.fingerprints}),
        folders=[str(run.path) for run in sorted(runs, key=lambda run: run.answers.unit)],
        metrics={metric: found.interval(metric) for metric in METRICS},
        ability=mean_change([run.ability for run in runs]),
    )


def _by_task(runs: Sequence[ScoredRun]) -> dict[str, float]:
    """Return the mean score of each task after the last one; nothing of a task that was not scored in every run."""
    values: dict[str, list[float]] = {}
    for answers in (run.answers for run in runs):
        last = len(answers.tasks) - 1
        for j, task in enumerate(answers.tasks):
            if (cell := answers.cells.get((last, j))) is not None:
                values.setdefault(task, []).append(100 * float(cell.mean()))
    return {task: sum(some) / len(some) for task, some in values.items() if len(some) == len(runs)}


def _by_order(found: Estimate) -> dict[str, float]:
    """Return the mean OA of each order; empty where it is undefined."""
    values: dict[str, list[float]] = {}
    for (order, _), value in zip(found.units, found.each["oa"], strict=False):
        values.setdefault(order, []).append(float(value))
    return {order: sum(some) / len(some) for order, some in values.items()}
