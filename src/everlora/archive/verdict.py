"""Defines what is found when a learner's folder is looked at, and collects it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from everlora.archive.outcome import Outcome
from everlora.archive.root import sha256
from everlora.archive.schema import R, Record, read_json
from everlora.core.errors import FolderError

Depth = Literal["quick", "hashes", "data", "logits"]
COPY, CHANGED = "restore it from a copy", "is damaged, or was changed after it was written"


class Problem(Record):
    """Holds something that is wrong with a folder.

    Attributes:
        file: below the folder.
        what: is wrong with it.
        cure: what to do.
    """

    file: str
    what: str
    cure: str


class Verdict(Outcome):
    """Holds what was found in a folder.

    Attributes:
        depth: how far it was looked at.
        tasks, files, size: how many there are of committed tasks and of files, and their bytes.
        problems: what is damaged.
        unfinished: what a process has left that ended in the midst of writing, and what going on does with it.
        notes: what is no fault, and good to know.
        unseen: files that were not looked at, since the time was up.
        repaired: what was made again.
    """

    depth: Depth
    tasks: int = 0
    files: int = 0
    size: int = 0
    problems: list[Problem] = Field(default_factory=list)
    unfinished: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    unseen: list[str] = Field(default_factory=list)
    repaired: list[str] = Field(default_factory=list)

    @property
    def state(self) -> Literal["sound", "unfinished", "damaged"]:
        """Return the verdict in a word.

        >>> Verdict(depth="hashes").state, Verdict(depth="hashes", unfinished=["a"]).state
        ('sound', 'unfinished')
        """
        return "damaged" if self.problems else "unfinished" if self.unfinished else "sound"


class Findings:
    """Collects what is amiss in a folder, and what was looked at.

    Args:
        path: the folder.
        hashes: read every file, to see whether it is what was written; otherwise only whether it is there.
        until: on the monotonic clock; no further file is read after it.
    """

    def __init__(self, path: Path, hashes: bool = True, until: float = float("inf")) -> None:
        self.path, self.hashes, self.until = path, hashes, until
        self.problems: list[Problem] = []
        self.unfinished: list[str] = []
        self.notes: list[str] = []
        self.unseen: list[str] = []
        self.seen: set[Path] = set()

    @property
    def late(self) -> bool:
        """Return whether the time is up."""
        return time.monotonic() > self.until

    def problem(self, file: Path, what: str, cure: str = COPY) -> None:
        """List a fault."""
        self.problems.append(Problem(file=file.relative_to(self.path).as_posix(), what=what, cure=cure))

    def read(self, kind: type[R], file: Path, cure: str = COPY) -> R | None:
        """Read a record; list it as a fault, and return None, if it cannot be read."""
        self.seen.add(file)
        try:
            return read_json(kind, file)
        except FolderError as error:
            missing = not file.exists()
            newer = "newer everlora" in str(error)
            what = (
                "is missing" if missing else str(error) if newer else "is damaged, or was changed after it was written"
            )
            self.problem(file, what, "update everlora" if newer else cure)
            return None

    def same(self, file: Path, digest: str, cure: str = COPY) -> bool:
        """Return whether a file is what was written; list it as a fault if it is not."""
        self.seen.add(file)
        if not file.is_file():
            self.problem(file, "is missing", cure)
            return False
        if not self.hashes:
            return True
        if self.late:
            self.unseen.append(file.relative_to(self.path).as_posix())
            return True
        if sha256(file) != digest:
            self.problem(file, CHANGED, cure)
            return False
        return True

    def verdict(self, depth: Depth, tasks: int) -> Verdict:
        """Return what was found."""
        files = [file for file in self.seen if file.is_file()]
        return Verdict(
            depth=depth,
            tasks=tasks,
            files=len(files),
            size=sum(file.stat().st_size for file in files),
            problems=list({(one.file, one.what): one for one in self.problems}.values()),
            unfinished=self.unfinished,
            notes=self.notes,
            unseen=self.unseen,
        )
