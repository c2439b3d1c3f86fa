"""What runs answered, read from their folders and set side by side; no method needs to be at hand for that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlora.analysis.ability import change, mean_change
from everlora.analysis.compare import METRICS, RESAMPLES, Answers, Estimate, Interval, difference, estimate
from everlora.core.errors import ConfigError, FolderError
from everlora.record.fingerprints import differing
from everlora.record.folder import Committed, identified, stages

GROUPS = ("replay-free", "replay", "task id")
STREAM = (
    "model", "revision", "benchmark", "order", "stream_seed", "max_train_samples", "max_eval_samples",
    "max_train_per_class", "max_eval_per_class", "metric",
)  # fmt: skip
READING = ("prompt", "max_source_length", "max_new_tokens")
TRAINING = ("train", "lora")


@dataclass(frozen=True)
class Ran:
    """A finished run as far as a comparison needs it.

    Attributes:
        path: the folder.
        method: its name; with its options as they were typed, if it has any.
        group: the section of the table.
        composition, training: what tells methods of one name apart.
        protocol: what must agree before figures may stand side by side.
        hash: of the protocol with all that was trained by, see `everlora.core.protocol`.
        fingerprints: how its scores were made (backend, precision, versions), by hash.
        answers: rows answered correctly.
        ability: change of general ability by measure.
    """

    path: Path
    method: str
    group: str
    composition: dict[str, Any]
    training: dict[str, Any]
    protocol: dict[str, Any]
    hash: str
    fingerprints: dict[str, dict[str, Any]]
    answers: Answers
    ability: dict[str, float]


def find(paths: Iterable[Path]) -> list[Path]:
    """The runs that paths name: run folders, and folders that hold run folders.

    Raises:
        FolderError: there is no run in one of them.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / "run.yaml").is_file() else sorted(p.parent for p in path.glob("**/run.yaml"))
        if not inside:
            raise FolderError(f"{path} holds no run of everlora; name run folders, or a folder of them")
        found += inside
    return list(dict.fromkeys(path.resolve() for path in found))


def read(path: Path) -> Ran:
    """Read a finished run.

    Raises:
        FolderError: no run, damaged, or not at its end.
    """
    facts, done = identified(path), stages(path)
    settings, composition = facts["settings"], facts["composition"]
    try:
        content = json.loads((path / "matrix.json").read_text(encoding="utf-8"))
        names, cells = tuple(content["tasks"]), content["matrix"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FolderError(f"{path} is not finished: it has no matrix.json; go on with it first (--resume)") from None
    sequence = composition["regime"] == "sequence"
    if len(done) != (len(names) if sequence else 1):
        raise FolderError(f"{path} is not finished: {len(done)} of {len(names)} tasks; go on with it first (--resume)")
    spelt, how = settings["method"], settings.get("evaluation", {})
    data = {name: digest for stage in done for name, digest in stage.facts["data"].items()}
    return Ran(
        path=path,
        method=spelt if "(" in spelt else composition["name"],
        group=_group(content, composition),
        composition=composition,
        training={name: settings.get(name) for name in TRAINING},
        protocol={
            **{name: settings.get(name) for name in (*STREAM, *READING)},
            "scoring": how.get("scoring"),
            "split": how.get("split"),
            "tasks": list(names),
            "rows": {name: data[name] for name in names},
        },
        hash=facts.get("protocol", {}).get("hash", "unknown"),
        fingerprints=content.get("fingerprints", {}).get("of") or {"unknown": {}},
        answers=Answers(settings.get("seed", 0), names, _cells(done, names, cells, sequence)),
        ability=change(content),
    )


def _group(content: dict[str, Any], composition: dict[str, Any]) -> str:
    if content.get("task_id_at_inference"):
        return "task id"
    again = composition.get("rehearsal") or composition["regime"] == "joint"
    return "replay" if content.get("replay") or again else "replay-free"


def _cells(
    done: Sequence[Committed], names: Sequence[str], matrix: list[list[float | None]], sequence: bool
) -> dict[tuple[int, int], Any]:
    """Rows answered correctly by cell; a cell that repeats an earlier answer (task id) is given that answer."""
    found: dict[tuple[int, int], Any] = {}
    for stage in done:
        i = stage.facts["number"] - 1 if sequence else len(names) - 1
        rows: dict[str, list[bool]] = {}
        with (stage.path / "predictions.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                rows.setdefault(row["task"], []).append(row["correct"])
        found |= {(i, names.index(task)): np.array(hits, dtype=np.float32) for task, hits in rows.items()}
    for i, row in enumerate(matrix):
        for j, score in enumerate(row):
            if score is not None and (i, j) not in found and (i - 1, j) in found:
                found[i, j] = found[i - 1, j]
    return found


def compare(
    runs: Sequence[Ran],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    mixed: bool = False,
    mixed_fingerprints: bool = False,
    metric: str = "oa",
) -> dict[str, Any]:
    """The table of runs: one row per method over its seeds, in sections.

    Args:
        runs: in any order.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        mixed: allow runs of different protocols; methods are then not set against one another.
        mixed_fingerprints: allow scores that were made in different ways (precision, versions).
        metric: by which methods are set against the best of their section.

    Returns:
        ``protocol`` (or None), ``fingerprints`` by hash, ``resamples``, ``seed``, and ``sections``: ``group``,
        ``best``, and ``rows`` with ``method``, ``seeds``, ``protocols`` (hashes), ``folders``, the metrics (``mean``,
        ``low``, ``high``), ``to_best`` and ``like_best``: that the difference to the best cannot be told from none.

    Raises:
        ConfigError: runs of different protocols, or one run twice.
    """
    if not runs:
        raise ConfigError("there is no finished run to be compared")
    agreed, prints = _agreed(runs, mixed), _scored_alike(runs, mixed_fingerprints)
    sections = []
    for group in GROUPS:
        grouped = _grouped([run for run in runs if run.group == group])
        found = {
            label: estimate([r.answers for r in own], resamples=resamples, seed=seed) for label, own in grouped.items()
        }
        rows = {label: _row(label, own, found[label]) for label, own in grouped.items()}
        best = _against_best(rows, found, metric) if agreed is not None else None
        if rows:
            ordered = sorted(rows.values(), key=lambda row: _order(row, metric))
            sections.append({"group": group, "best": best, "rows": ordered})
    return {
        "protocol": agreed,
        "fingerprints": prints,
        "resamples": resamples,
        "seed": seed,
        "metric": metric,
        "sections": sections,
    }


def _order(row: dict[str, Any], metric: str) -> tuple[bool, float, str]:
    """Those that cannot be told from the best first and by name, the others by their mean."""
    like, mean = row["like_best"] is True, (row[metric] or {"mean": -1e9})["mean"]
    return (not like, 0.0 if like else -mean, row["method"])


def _agreed(runs: Sequence[Ran], mixed: bool) -> dict[str, Any] | None:
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


def _scored_alike(runs: Sequence[Ran], mixed: bool) -> dict[str, dict[str, Any]]:
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


def _grouped(runs: Sequence[Ran]) -> dict[str, list[Ran]]:
    """Runs of one method over seeds, by a label; what is told apart by more than its name says by what."""
    kinds: dict[str, list[Ran]] = {}
    for run in sorted(runs, key=lambda run: (run.method, run.answers.seed, str(run.path))):
        known = json.dumps([run.composition, run.training, run.protocol], sort_keys=True, default=str)
        kinds.setdefault(known, []).append(run)
    labels: dict[str, list[Ran]] = {}
    for own in kinds.values():
        seen: dict[int, Path] = {}
        for run in own:
            if run.answers.seed in seen:
                raise ConfigError(
                    f"{seen[run.answers.seed]} and {run.path} are the same run of {run.method!r} (seed "
                    f"{run.answers.seed}); name one of them"
                )
            seen[run.answers.seed] = run.path
        namesakes = [other[0] for other in kinds.values() if other[0].method == own[0].method]
        told = _differing(own[0], namesakes)
        labels[own[0].method + (f" [{told}]" if told else "")] = own
    return labels


def _differing(one: Ran, others: Sequence[Ran]) -> str:
    """The settings of ``one`` that are not the same in all of ``others``."""
    flat = [_flat({"part": o.composition, **o.training, **o.protocol}) for o in (one, *others)]
    return ", ".join(
        f"{key.rpartition('.')[2]}={value}"
        for key, value in flat[0].items()
        if any(other.get(key) != value for other in flat[1:])
    )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, list):
        values = {str(k): value for k, value in enumerate(values)}
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: value for name, one in values.items() for key, value in _flat(one, f"{prefix}.{name}").items()}


def _row(label: str, runs: Sequence[Ran], found: Estimate) -> dict[str, Any]:
    return {
        "method": label,
        "seeds": list(found.seeds),
        "protocols": sorted({run.hash for run in runs}),
        "folders": [str(run.path) for run in sorted(runs, key=lambda run: run.answers.seed)],
        **{metric: _plain(found.interval(metric)) for metric in METRICS},
        "to_best": None,
        "like_best": None,
        "ability": mean_change([run.ability for run in runs]),
    }


def _against_best(rows: dict[str, dict[str, Any]], found: dict[str, Estimate], metric: str) -> str | None:
    """Write into each row how it differs from the best of them; return which that is."""
    known = {label: mean for label in rows if (mean := found[label].means[metric]) is not None}
    if not known:
        return None
    best = max(sorted(known), key=lambda label: known[label])
    for label in known:
        gap = difference(found[label], found[best], metric)
        assert gap is not None
        rows[label]["to_best"], rows[label]["like_best"] = _plain(gap), gap.contains(0.0)
    return best


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"mean": interval.mean, "low": interval.low, "high": interval.high}
