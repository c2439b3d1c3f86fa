"""Lets one process at a time write to a learner's folder.

The operating system holds the lock, and lets go of it when its process ends, however that ends. Beside it stands who
holds it, for those who are refused; what a process has left there without letting go is taken over, and said.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from everlora.archive.atomic import write_text
from everlora.archive.schema import Record
from everlora.core.errors import FolderError

LOCK, OWNER = ".lock", ".owner.json"
_HELD: set[tuple[Path, int]] = set()
"""Folders that this process writes to, each with the thread that does: two would mix what they write, too."""


class Owner(Record):
    """Holds who writes to a folder: person, host, process, and since when (seconds of the epoch)."""

    user: str
    host: str
    pid: int
    since: float

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a container may have no names
            user = "somebody without a name"
        return cls(user=user, host=socket.gethostname(), pid=os.getpid(), since=time.time())

    def describe(self, now: float) -> str:
        """Say who it is, and for how long.

        >>> Owner(user="ada", host="mill", pid=7, since=0.0).describe(150.0)
        'process 7 of ada on mill, for 2 min'
        """
        seconds = max(0.0, now - self.since)
        age = f"{seconds / 3600:.0f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
        return f"process {self.pid} of {self.user} on {self.host}, for {age}"


@contextmanager
def writing(path: Path, tell: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold the lock of a learner's folder for a while; the folder is made if it is missing.

    What a thread holds already it may hold once more; others of its process are refused as other processes are.

    Args:
        path: the folder.
        tell: is given a line where a process ended without letting go of it.

    Raises:
        FolderError: another process or thread writes to it, or the place cannot be written.
    """
    place = path.absolute(), threading.get_ident()
    if place in _HELD:
        yield
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make the folder {path}: {error.strerror}") from error
    from filelock import FileLock, Timeout  # commands that write nothing start without it

    try:
        lock = FileLock(path / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        owner = _read(path)
        who = owner.describe(time.time()) if owner else "another process"
        raise FolderError(f"{path} is being written by {who}; wait until it ends, or stop it") from None
    except OSError as error:
        raise FolderError(f"cannot write to the folder {path}: {error.strerror}") from error
    _HELD.add(place)
    try:
        if (left := _read(path)) is not None:
            tell(f"{path} was left by {left.describe(time.time())}; going on with what it had committed")
        write_text(path / OWNER, json.dumps(Owner.here().plain()))
        yield
    finally:
        _HELD.discard(place)
        with contextlib.suppress(OSError):  # a disk that cannot be written any more hides no other error
            (path / OWNER).unlink(missing_ok=True)
        lock.release()


def _read(path: Path) -> Owner | None:
    """Read who holds, or held, a folder; None where nobody says."""
    try:
        return Owner.model_validate_json((path / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
