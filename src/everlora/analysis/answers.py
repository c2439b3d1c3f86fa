"""What runs answered, read from their folders; no method needs to be at hand for that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlora.analysis.ability import change
from everlora.analysis.compare import ActivationSource
from everlora.archive.folder import Committed, identified, stages
from everlora.core.errors import FolderError

STREAM = (
    "model", "revision", "benchmark", "stream_seed", "max_train_samples", "max_eval_samples",
    "max_train_per_class", "max_eval_per_class", "metric",
)  # fmt: skip
READING = ("prompt", "max_source_length", "max_new_tokens")
TRAINING = ("train", "train_of", "lora")
CLOSE = 1e-3
"""Percentage points by which a score and its rows, which are written to six decimals, may differ."""


@dataclass(frozen=True)
class ScoredRun:
    """A finished run as far as a comparison needs it.

    Attributes:
        path: the folder.
        method: its name; with its options as they were typed, if it has any.
        group: the section of the table.
        composition, training: what tells methods of one name apart.
        protocol: what must agree before figures may stand side by side.
        settings: all that was set.
        hash: of the protocol with all that was trained by, see `everlora.settings.protocol`.
        fingerprints: how its scores were made (backend, precision, versions), by hash.
        answers: how each row was answered.
        ability: change of general ability by measure.
    """

    path: Path
    method: str
    group: str
    composition: dict[str, Any]
    training: dict[str, Any]
    protocol: dict[str, Any]
    settings: dict[str, Any]
    hash: str
    fingerprints: dict[str, dict[str, Any]]
    answers: ActivationSource
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


def read(path: Path) -> ScoredRun:
    """Read a finished run.

    Raises:
        FolderError: no run, damaged, or not at its end.
    """
    facts, done = identified(path), stages(path)
    settings, composition = facts["settings"], facts["composition"]
    try:
        content = json.loads((path / "matrix.json").read_text(encoding="utf-8"))
        names, cells = tuple(content["tasks"]), content["matrix"]
        if [len(row) for row in cells] != [len(names)] * len(names):
            raise FolderError(f"{path / 'matrix.json'} is damaged: {len(names)} tasks need as many rows and columns")
    except (OSError, ValueError, KeyError, TypeError):
        raise FolderError(f"{path} is not finished: it has no matrix.json; go on with it first (--resume)") from None
    sequence = composition["regime"] == "sequence"
    if len(done) != (len(names) if sequence else 1):
        raise FolderError(f"{path} is not finished: {len(done)} of {len(names)} tasks; go on with it first (--resume)")
    spelt, how = settings["method"], settings.get("evaluation", {})
    data = {name: digest for stage in done for name, digest in stage.facts["data"].items()}
    return ScoredRun(
        path=path,
        method=spelt if "(" in spelt else composition["name"],
        group=_group(content, composition),
        composition=composition,
        training={name: settings.get(name) for name in TRAINING},
        protocol={
            **{name: settings.get(name) for name in (*STREAM, *READING)},
            "scoring": how.get("scoring"),
            "split": how.get("split"),
            "rows": {name: data[name] for name in sorted(names)},
        },
        settings=settings,
        hash=facts.get("protocol", {}).get("hash", "unknown"),
        fingerprints=content.get("fingerprints", {}).get("of") or {"unknown": {}},
        answers=ActivationSource(
            settings.get("seed", 0), names, _cells(done, names, cells, sequence), " ".join(names)
        ),
        ability=change(content),
    )


def _group(content: dict[str, Any], composition: dict[str, Any]) -> str:
    if content.get("task_id_at_inference"):
        return "task id"
    told = content.get("replay")  # by the method, which knows whose rows they are: those it wrote itself are no replay
    again = composition.get("rehearsal") or composition["regime"] == "joint"
    return "replay" if (again if told is None else told) else "replay-free"


def _cells(
    done: Sequence[Committed], names: Sequence[str], matrix: list[list[float | None]], sequence: bool
) -> dict[tuple[int, int], Any]:
    """What each row adds to its cell, 0 to 1; a cell that repeats an earlier answer (task id) is given that answer.

    Raises:
        FolderError: the mean over rows is not what matrix.json says.
    """
    found: dict[tuple[int, int], Any] = {}
    for stage in done:
        i = stage.facts["number"] - 1 if sequence else len(names) - 1
        rows: dict[str, list[float]] = {}
        with (stage.path / "predictions.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                mark = row.get("share", row.get("score", 100.0 * row["correct"])) / 100.0
                rows.setdefault(row["task"], []).append(mark)
        found |= {(i, names.index(task)): np.array(marks) for task, marks in rows.items()}
    for i, row in enumerate(matrix):
        for j, score in enumerate(row):
            if score is not None and (i, j) not in found and (i - 1, j) in found:
                found[i, j] = found[i - 1, j]
    for (i, j), marks in found.items():
        said = matrix[i][j]
        if said is None or not abs(100.0 * marks.mean() - said) <= CLOSE:  # no NaN either
            raise FolderError(
                f"{done[0].path.parents[1]}: matrix.json has {said} for task {names[j]!r} after task {i + 1}, "
                f"its rows come to {100.0 * marks.mean():.4f}; restore the folder, or make the run again"
            )
    return found
