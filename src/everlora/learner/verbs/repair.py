"""Makes again what is damaged in a learner's folder, where something sound in it says what it was.

Nothing that is sound is written again; what cannot be made again is named.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from everlora.archive.atomic import explained, recover, write_text
from everlora.archive.broken_off import FOLDER, remove_damaged, sweep_checkpoint
from everlora.archive.committed import read_stages, sweep_evaluations
from everlora.archive.exchange import complete_exchange
from everlora.archive.history import HISTORY
from everlora.archive.identity import RunRecord
from everlora.archive.lock import writing
from everlora.archive.manifest import MANIFEST, files_at_root, write_manifest
from everlora.archive.parity import PARITY, restore
from everlora.archive.records import Environment
from everlora.archive.root import PATTERNS, check_root, sha256
from everlora.archive.schema import Record, read_json
from everlora.archive.verdict import Verdict
from everlora.archive.verify import ENVIRONMENT, RUN, TASKS, inspect
from everlora.core.errors import EverloraError, FolderError
from everlora.learner import experiment
from everlora.learner.opened import load_learner, tasks_of
from everlora.learner.opened import restore as bring_back
from everlora.learner.scoring import committed_matrix
from everlora.learner.sequential import SequentialLearner
from everlora.settings.spec import RawSettings, RunSpec

DAMAGED = f".{HISTORY}.damaged"


def repair(path: Path, here: RawSettings | None = None) -> Verdict:
    """Make again what can be, and return what a folder is after that.

    Args:
        path: the folder of a learner.
        here: settings of this process, see `everlora.learner.opened.load_learner`.

    Raises:
        FolderError: there is no learner, another process writes to it, or the disk cannot be written.
    """
    inspect(path, hashes=False)
    made: list[str] = []
    with writing(path), explained(path):
        made += sweep(path)
        made += [
            done for file, kind in ((RUN, RunRecord), (ENVIRONMENT, Environment)) for done in copy(path, file, kind)
        ]
        made += by_parity(path)
        made += list_again(path)
        made += set_history_aside(path)
        made += _root(path, here)
    return (
        inspect(path).verdict("hashes", len(inspect(path, hashes=False).commits)).model_copy(update={"repaired": made})
    )


def sweep(path: Path) -> list[str]:
    """Remove what a process has left that was ended, and put back what it had put aside."""
    before = len(inspect(path, hashes=False).unfinished)
    with suppress(FolderError):  # where the list is damaged, it is made again below
        complete_exchange(path)
    recover(path)
    seen = inspect(path, hashes=False)
    if seen.manifest is not None:
        sweep_evaluations(path, seen.manifest)
    sweep_checkpoint(path, seen.stack())
    swept = before - len(inspect(path, hashes=False).unfinished)
    made = [f"{swept} leftovers swept"] if swept > 0 else []
    if remove_damaged(path / FOLDER):
        made.append("a damaged checkpoint removed: the task that it was of begins anew")
    return made


def copy(path: Path, name: str, kind: type[Record]) -> list[str]:
    """Bring back a file at the root from the copy in a task that is what was committed."""
    seen = inspect(path)
    if not any(problem.file == name for problem in seen.problems):
        return []
    for task in reversed(seen.commits):
        source = path / TASKS / task / name
        if source.is_file() and sha256(source) == seen.commits[task].files.get(name):
            read_json(kind, source)
            write_text(path / name, source.read_text(encoding="utf-8"))
            return [f"{name}, of its copy in {task}"]
    return []


def by_parity(path: Path) -> list[str]:
    """Restore the one committed file that is damaged, if there is a parity that covers it."""
    seen = inspect(path)
    damaged = {problem.file for problem in seen.problems}
    if seen.run is None or not (path / PARITY).is_file() or not any(file.startswith(TASKS) for file in damaged):
        return []
    try:
        found = restore(path, seen.run.id, damaged)
    except FolderError:
        return []
    return [f"{found}, of the parity"] if found else []


def list_again(path: Path) -> list[str]:
    """Make the list of tasks again, where all tasks are sound and of one run."""
    seen = inspect(path)
    if {problem.file for problem in seen.problems if _of_the_list(problem.file)} != {MANIFEST} or seen.run is None:
        return []
    (path / MANIFEST).unlink(missing_ok=True)
    found = read_stages(path, complete=False)
    write_manifest(path, seen.run.id, [one.seal for one in found], complete=False)
    return [f"{MANIFEST}, of the {len(found)} tasks that are here"]


def _of_the_list(file: str) -> bool:
    return file in (MANIFEST, RUN) or file.startswith((f"{TASKS}/", "before/"))


def set_history_aside(path: Path) -> list[str]:
    """Take a damaged history out of the way, which nothing else tells."""
    if any(problem.file == HISTORY for problem in inspect(path).problems):
        if (path / HISTORY).is_file():
            os.replace(path / HISTORY, path / DAMAGED)
        return [f"not {HISTORY}: what it said beside the tasks is lost (what is left of it: {DAMAGED})"]
    return []


def _root(path: Path, here: RawSettings | None) -> list[str]:
    """Make the files at the root again, of the tasks; the base model is loaded for it."""
    seen = inspect(path)
    listed = seen.manifest.files if seen.manifest else None
    damaged = [problem.file for problem in seen.problems]
    if any("/" in file or file in (RUN, ENVIRONMENT, MANIFEST) for file in damaged) or seen.run is None:
        return []
    if listed is not None and not damaged:
        return []
    if not seen.commits:
        write_manifest(path, seen.run.id, [], complete=True)
        return [f"{MANIFEST}, with the files at the root"]
    if listed is None and not damaged and isinstance(seen.run.settings, RunSpec):
        return []  # a run that was not at its end: only --resume knows the tasks that are to come
    for file in [file for file in damaged if file in (listed or {})] + _stale(path):
        (path / file).unlink(missing_ok=True)
    try:
        write_root(load_learner(path, here))
    except EverloraError as error:
        return [f"not the files at the root: {error}"]
    return [", ".join(file.name for file in files_at_root(path) if file.name in damaged) or "the files at the root"]


def _stale(path: Path) -> list[str]:
    """List the files of a learner at the root of which matrix.json says that they are others."""
    try:
        check_root(path, complete=False)
    except FolderError:
        return [file.name for pattern in PATTERNS for file in path.glob(pattern)]
    return []


def write_root(learner: SequentialLearner) -> None:
    """Write the learner as one adapter, scores, card and tokenizer to the root of its folder."""
    with learner.writing():
        learner.folder.write_manifest()
        known = tasks_of(learner)
        bring_back(learner, known)
        if learner.newest is not None:
            learner.export()
        experiment.finish(learner, committed_matrix(learner, known))
