"""Makes a stream of a user's own folder: one folder a task, written in any way that `folders` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.core.errors import DataError, nearest
from everlora.data.files import TaskFile, load_task
from everlora.data.folders import ENDINGS, SPLITS
from everlora.data.rows import is_saved_to_disk
from everlora.data.sources import TaskSource, is_description
from everlora.data.stream import TaskStream, left_out_note


def task_folders(path: Path) -> dict[str, Path]:
    """Return folders with a split's file at ``path`` or up to two levels below it, by name.

    Raises:
        DataError: there is none, one lacks its train file, or two have one name.
    """
    if is_saved_to_disk(path):
        raise DataError(f"{path} is a data set of save_to_disk; write a YAML file with train: {path}/train and a test")
    if is_description(path):
        raise DataError(f"{path} holds a description of data sets; write a YAML file with source: {{path: {path}}}")
    found: dict[str, Path] = {}
    for folder in [path, *sorted(p for depth in ("*", "*/*") for p in path.glob(depth) if p.is_dir())]:
        known = ("train", "test", *SPLITS["dev"])
        splits = [split for split in known if any((folder / f"{split}{end}").is_file() for end in ENDINGS)]
        if splits:
            name = folder.resolve().name
            if "train" not in splits:
                raise DataError(f"{folder} has a {splits[0]} file and no train file; add it, or move the folder away")
            if name in found:
                raise DataError(f"{path} has {name!r} twice: {found[name]} and {folder}; move one away")
            found[name] = folder
    if not found:
        raise DataError(f"{path} holds no folder with a train file (train.json, .jsonl, .csv, ...); check the path")
    return found


def stream_from_folder(path: Path, tasks: Sequence[str] | None = None) -> TaskStream:
    """Load the named ``tasks`` of a folder, in that order.

    Raises:
        DataError: an unknown task, several tasks in an order that nothing says, or a file or row that is unusable.
    """
    found = task_folders(path)
    for name in tasks or ():
        if name not in found:
            raise DataError(f"{path} has no task {name!r}{nearest(name, found)}")
    if tasks is None and len(found) > 1:
        listed = ",".join(found)
        raise DataError(f"nothing says in which order the tasks of {path} are learned; give --tasks {listed}")
    wanted = list(tasks or found)
    loaded = tuple(
        load_task(TaskFile(name=name, source=TaskSource(path=str(found[name].resolve()))), path / "folder")
        for name in wanted
    )
    return TaskStream(name=path.resolve().name, tasks=loaded, note=left_out_note(loaded))
