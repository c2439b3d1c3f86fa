"""Refuses a base model, or weights, other than those that a folder's tasks were learned with."""

from __future__ import annotations

from pathlib import Path

from everlora.archive.folder import RunFolder, read_run
from everlora.archive.records import Environment
from everlora.archive.schema import read_json
from everlora.core.errors import FolderError
from everlora.models.base_files import check_same_base
from everlora.models.families import TextClassifier
from everlora.models.families.pooled import Pooling
from everlora.models.loading import Loaded


def spelling_of(dtype: str, base: Loaded, out: Path) -> str:
    """Return how the run in ``out`` spells ``dtype``, if both are the same weights: ``auto`` is what it chose."""
    try:
        there = read_run(out).settings.dtype
    except FolderError:
        return dtype
    return there if weights_of(out) == base.precision.describe()["weights"] else dtype


def weights_of(out: Path) -> str | None:
    """Return the type of the weights that the run in ``out`` was made on; None if that is not known.

    Raises:
        FolderError: what was noted of it was changed since.
    """
    there = _environment(out)
    return there.precision.weights if there and there.precision else None


def pooling_of(out: Path) -> Pooling | None:
    """Return what an encoder's head read when the tasks in ``out`` were learned; None where there are none."""
    if not any((out / "tasks").glob("[0-9]*")):
        return None
    there = _environment(out)
    # An everlora that did not note it read what the checkpoint's own head makes of a text.
    return (there.pooling or "head") if there and there.family == "encoder" else None


def _environment(out: Path) -> Environment | None:
    """Read on what a run was learned; None where nobody noted it, and refused where the note was changed."""
    place = out / "environment.json"
    return read_json(Environment, place) if place.is_file() else None


def check_base(base: Loaded, out: Path) -> None:
    """Refuse a base model whose files are others than those that the run in ``out`` was learned on.

    Raises:
        FolderError: which file it is.
    """
    if (there := _environment(out)) is not None:
        check_same_base(out, base.name, there.base_files, base.files)


def check_same_model(base: Loaded, folder: RunFolder) -> None:
    """Refuse to go on with other weights, or another pooling, than those that tasks were learned with."""
    read, reads = pooling_of(folder.path), base.family.pooling if isinstance(base.family, TextClassifier) else None
    if None not in (read, reads) and read != reads:
        raise FolderError(
            f"{folder.path} was learned with pooling {read} and would go on with {reads}; run it by itself"
        )
    then, now = weights_of(folder.path), base.precision.describe()["weights"]
    if folder.stages() and then not in (None, now):
        raise FolderError(
            f"{folder.path} was learned on {then} weights and would go on with {now}; pass --dtype {then}"
        )
