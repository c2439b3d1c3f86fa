"""Reads the tasks of a learner's folder, once for as long as this process keeps others from writing to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everlora.archive.committed import Committed, read_stage, read_stages
from everlora.archive.manifest import MANIFEST, write_manifest
from everlora.archive.unchanged import Facts, facts_of
from everlora.core.errors import FolderError


class HeldStages:
    """Holds the stages of the run ``run`` in ``path``.

    Within `hold` nobody else writes: every file is read when the first of its stages is needed, and then only what
    this process adds. Otherwise the folder is read every time.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run
        self._depth = 0
        self._read: tuple[Facts, list[Committed]] | None = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Note that this process keeps others from writing, for as long as the block goes on."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._read = None

    def read(self) -> list[Committed]:
        """Return the finished stages, in order.

        Raises:
            FolderError: a file of a finished stage is missing or changed.
        """
        if (known := self._known()) is not None:
            return list(known)
        listed, found = self._listed(), read_stages(self.path)
        for stage in found:
            if stage.facts.run != self.run:
                raise FolderError(f"{stage.path} was learned by another run than {self.path}; choose another --out")
        if self._depth and listed is not None:
            self._read = listed, list(found)
        return found

    def add(self, place: Path) -> None:
        """Read the stage in a folder that was just committed, or scored, and list it with the others."""
        if (known := self._known()) is None:
            self.write_manifest()
            return
        others = [one for one in known if one.path != place]
        found = sorted([*others, read_stage(place)], key=lambda one: one.facts.number)
        self._write(found, complete=False)
        self._read = self._after(found)

    def write_manifest(self, *, complete: bool = False) -> None:
        """Write which tasks the folder has; with the files at its root once they are all written."""
        known = self._known()
        self._write(read_stages(self.path, hashes=False) if known is None else known, complete=complete)
        self._read = None if known is None else self._after(known)

    def _write(self, found: list[Committed], *, complete: bool) -> None:
        write_manifest(self.path, self.run, [stage.seal for stage in found], complete=complete)

    def _known(self) -> list[Committed] | None:
        """Return the stages that were read, if the list of them is still the one that was there then."""
        return self._read[1] if self._read is not None and self._read[0] == self._listed() else None

    def _after(self, found: list[Committed]) -> tuple[Facts, list[Committed]] | None:
        listed = self._listed()
        return None if listed is None else (listed, found)

    def _listed(self) -> Facts | None:
        """Return which file the manifest is now: an act that exchanges tasks writes another one."""
        try:
            return facts_of(self.path / MANIFEST)
        except OSError:
            return None
