"""Gathers the scores that an accuracy matrix is compared with: of the base model, of guessing, of single tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from everlora.archive.atomic import write_json
from everlora.archive.commits import Baseline, Commit
from everlora.archive.records import Score
from everlora.archive.results import GeneralAbility, ReferenceScores
from everlora.core.errors import FolderError
from everlora.metrics import References

SINGLE = "single.json"


def reference_scores(
    tasks: Sequence[str], before: Baseline | None, committed: Sequence[Commit], folder: Path
) -> ReferenceScores:
    """Return reference scores of the tasks, in order, and the rows of general ability.

    Args:
        tasks: names.
        before: what is committed of the time before the first task.
        committed: what is committed of each stage.
        folder: of the run.
    """
    single = folder / SINGLE

    def of_tasks(scores: Mapping[str, float]) -> list[Score] | None:
        return [scores.get(name) for name in tasks] if set(scores) & set(tasks) else None

    return ReferenceScores(
        base=of_tasks(before.base if before else {}),
        chance=of_tasks({name: score for commit in committed for name, score in commit.chance.items()}),
        single=of_tasks(json.loads(single.read_text(encoding="utf-8")) if single.is_file() else {}),
        general=_general(before.general if before else None, [commit.general for commit in committed]),
        cut={commit.name: commit.cut for commit in committed if commit.cut},
    )


def _general(start: dict[str, float] | None, rows: list[dict[str, float] | None]) -> GeneralAbility | None:
    if start is None and not any(rows):
        return None
    delta = [{k: row[k] - start[k] for k in start if k in row} if row and start else None for row in rows]
    return GeneralAbility(before=start, after=rows, delta=delta)


def references(found: ReferenceScores) -> References:
    """Return reference scores as metrics take them; general ability is that after the latest stage."""
    general = found.general
    start, end = (general.before, general.after[-1]) if general and general.after else (None, None)
    return References(
        base=found.base,
        chance=found.chance,
        single=found.single,
        general=(start, end) if start and end else None,
    )


def write_single_task_scores(folder: Path, source: Path, scores: Mapping[str, float]) -> None:
    """Write the scores of models that learned each task alone, once and for all, into a run's folder.

    Raises:
        FolderError: the folder has others already.
    """
    there = folder / SINGLE
    if there.is_file() and json.loads(there.read_text(encoding="utf-8")) != dict(scores):
        raise FolderError(f"{folder} has other scores of tasks learned alone than {source}; choose another --out")
    write_json(there, dict(scores))
