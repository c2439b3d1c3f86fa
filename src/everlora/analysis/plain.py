"""Finds the run of plain LoRA that a run can be set against: beside it, by the same settings."""

from __future__ import annotations

from pathlib import Path

from everlora.analysis.answers import ComparedProtocol
from everlora.archive.folder import read_matrix, read_run
from everlora.archive.identity import RunRecord
from everlora.core.errors import EverloraError
from everlora.core.plain import JsonObject
from everlora.settings.spec import RunSpec

PLAIN = ("inclora", "seqlora")
"""Methods that do nothing about forgetting, the first of them first: what others cost is set against them."""


def plain_run(path: Path, record: RunRecord) -> Path | None:
    """Return a finished run of plain LoRA in the folder that a run lies in, of its seed if there is one."""
    wanted, found = _settings(record), []
    for other in sorted(path.resolve().parent.iterdir()):
        # By name first, since a folder of a hundred runs would be read a hundred times.
        if other == path.resolve() or not any(name in other.name for name in PLAIN) or not other.is_dir():
            continue
        try:
            known = read_run(other)
            whole = all(cell is not None for cell in read_matrix(other).matrix[-1])
        except (EverloraError, IndexError):
            continue
        if known.composition.name in PLAIN and whole and _settings(known) == wanted:
            seed = known.settings.seed != record.settings.seed
            found.append((PLAIN.index(known.composition.name), seed, other))
    return min(found)[-1] if found else None


def _settings(record: RunRecord) -> JsonObject:
    """Return what must agree: the tasks, their rows and how they are learned, but for the rate."""
    settings = record.settings
    same: JsonObject = ComparedProtocol.of(settings, {}).plain()
    if isinstance(settings, RunSpec):
        same |= {"order": settings.order, "tasks": list(settings.tasks or [])}
    train = settings.model_dump(mode="json", include={"train"})["train"]
    return {**same, "train": {key: value for key, value in train.items() if key != "learning_rate"}}
