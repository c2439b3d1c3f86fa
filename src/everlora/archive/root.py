"""Notes what the learner at the root of a run folder is made of, and finds a file of it that was changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path

from everlora.archive.results import MatrixRecord, RootFiles
from everlora.archive.schema import read_json
from everlora.archive.unchanged import Unchanged
from everlora.core.errors import FolderError

MATRIX = "matrix.json"
PATTERNS = ("*.safetensors", "adapter_config.json")
"""Files at the root that hold what was learned."""


def root_files(path: Path, stages: int) -> RootFiles | None:
    """Hash the files of the learner at the root of a run folder, as it stands after so many stages."""
    found = sorted({file for pattern in PATTERNS for file in path.glob(pattern) if not file.name.startswith(".")})
    return RootFiles(stages=stages, digests={file.name: hash_of(file) for file in found}) if found else None


def check_root(path: Path, *, complete: bool = True) -> None:
    """Refuse a run folder whose root holds another learner than was written there.

    Args:
        path: the run folder; one that says nothing of its root is taken as it is.
        complete: refuse it, too, where a file is missing, and not only where one was changed.

    Raises:
        FolderError: which file it is, and what to do.
    """
    if not (path / "run.yaml").is_file() or not (path / MATRIX).is_file():
        return
    try:
        root = read_json(MatrixRecord, path / MATRIX).root
    except FolderError:
        return  # whoever needs the matrix says so; --resume writes it again
    committed = len(list((path / "tasks").glob("[0-9]*/COMMIT")))
    # A process that ended behind a commit has left the root and what is said of it behind; --resume writes both.
    if root is None or committed not in (0, root.stages):
        return
    for name, digest in root.digests.items():
        file = path / name
        if not file.is_file() and complete:
            raise FolderError(f"{file} is missing; run again with --resume, which makes it from {path / 'tasks'}")
        if file.is_file() and hash_of(file) != digest:
            raise FolderError(
                f"{file} was changed after it was written, or is damaged; delete it and run again with --resume, "
                f"which makes it from {path / 'tasks'}"
            )


def sha256(file: Path) -> str:
    """Hash the content of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read_hash(file: Path) -> str:
    return sha256(file)


hash_of = Unchanged(_read_hash)
"""Returns what `sha256` does; a file that this process has hashed, and nobody has changed since, is not read again."""
