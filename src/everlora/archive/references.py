"""What stands beside the accuracy matrix in matrix.json: reference scores and general ability, if known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everlora.archive.atomic import write_json
from everlora.core.errors import FolderError
from everlora.metrics import References

SINGLE = "single.json"


def reference_scores(
    tasks: Sequence[str], before: Mapping[str, Any], done: Sequence[Mapping[str, Any]], folder: Path
) -> dict[str, Any]:
    """Reference scores of the tasks, in order, and the rows of general ability.

    Args:
        tasks: names.
        before: what is committed of the time before the first task.
        done: what is committed of each stage.
        folder: of the run.

    Returns:
        ``base``, ``chance`` and ``single`` (one score a task, or None), each where any is known; ``general``: the
        measures ``before`` and ``after`` each stage, and their ``delta`` to before; ``cut``: training texts that were
        cut to ``max_source_length``, by stage, where any were.
    """
    single = folder / SINGLE
    known = {
        "base": before.get("base", {}),
        "chance": {name: score for facts in done for name, score in facts.get("chance", {}).items()},
        "single": json.loads(single.read_text(encoding="utf-8")) if single.is_file() else {},
    }
    found: dict[str, Any] = {
        kind: [scores.get(name) for name in tasks] for kind, scores in known.items() if set(scores) & set(tasks)
    }
    rows = [facts.get("general") for facts in done]
    if "general" in before or any(rows):
        start = before.get("general")
        delta = [{k: row[k] - start[k] for k in start if k in row} if row and start else None for row in rows]
        found["general"] = {"before": start, "after": rows, "delta": delta}
    if cut := {facts["name"]: facts["cut"] for facts in done if facts.get("cut")}:
        found["cut"] = cut
    return found


def references(found: Mapping[str, Any]) -> References:
    """The same as metrics take it; general ability is that after the last stage that is there."""
    general = found.get("general")
    ends = (general["before"], general["after"][-1]) if general and general["after"] else (None, None)
    return References(
        base=found.get("base"),
        chance=found.get("chance"),
        single=found.get("single"),
        general=(ends[0], ends[1]) if ends[0] and ends[1] else None,
    )


def take_single(folder: Path, alone: Path, scores: Mapping[str, float]) -> None:
    """Keep the scores of models that learned each task alone, once and for all, in a run's folder.

    Raises:
        FolderError: the folder has others already.
    """
    there = folder / SINGLE
    if there.is_file() and json.loads(there.read_text(encoding="utf-8")) != dict(scores):
        raise FolderError(f"{folder} has other scores of tasks learned alone than {alone}; choose another --out")
    write_json(there, dict(scores))
