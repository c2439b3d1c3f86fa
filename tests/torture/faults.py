"""A fault at every change that an act makes in a folder, in one run of the act.

The functions by which files are written, renamed and removed are wrapped. Before and after each of them the folder is
looked at: that is what a process leaves that is killed there. A file that was just written is looked at half, too:
what a process leaves that is killed in the midst. And at each of them a forked child is given the error of a disk
that is full, broken or not to be written, so that the act is run only once, and the training in it.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import modeling_utils

from everlora.adapters import files as adapters
from everlora.core.errors import EverloraError
from everlora.learner import removal
from everlora.training import checkpoint, memory

Tree = dict[str, bytes | None]
"""What is in a folder: bytes by name, None for a folder."""
ERRORS = ("ENOSPC", "EIO", "EROFS")
UNSEEN = (".lock", ".owner.json")
"""Files that say who writes; they hold nothing of a learner."""


def tree(root: Path) -> Tree:
    """Read a folder."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        if path.name not in UNSEEN:
            found[path.relative_to(root).as_posix()] = path.read_bytes() if path.is_file() else None
    return found


def put(root: Path, content: Tree) -> None:
    """Make a folder what it was; the lock stays, which a process may hold."""
    root.mkdir(parents=True, exist_ok=True)
    for path in root.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, data in content.items():
        (root / name).mkdir(parents=True, exist_ok=True) if data is None else (root / name).write_bytes(data)


def key(content: Tree) -> str:
    """Hash what is in a folder."""
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name}:{data is None}:{len(data or b'')}:".encode())
        digest.update(data or b"")
    return digest.hexdigest()


class Faults:
    """Notes what a folder is at every change, and what each error at it makes of it.

    Attributes:
        points: kind and place of every change, in order.
        states: what a killed or failing process leaves; by hash, with how it came about first.
        kills, failures: how many of each were tried.
        ends: how failing acts ended, counted.
    """

    def __init__(self, root: Path, every: int = 1) -> None:
        self.root, self.every = root, every
        self.points: list[tuple[str, str]] = []
        self.states: dict[str, tuple[str, Tree]] = {}
        self.kills = self.failures = 0
        self.ends: dict[str, int] = {}
        self.armed: str | None = None
        self.child = False
        self._half: Path | None = None
        self._inside = False

    # --- what is noted -----------------------------------------------------------------------------------------------

    def note(self, how: str, content: Tree) -> None:
        self.states.setdefault(key(content), (how, content))

    def point(self, kind: str, path: Any) -> bool:
        """Note a change that is about to be made; True where an error is to be raised in its place."""
        if self._inside or not self._ours(path) or (kind == "mkdir" and os.path.isdir(path)):
            return False  # a folder that is there is not made
        if self.child:
            return self.armed == "EROFS"  # a disk that cannot be written stays so
        self._inside = True
        try:
            name = os.path.relpath(path, self.root)
            self.points.append((kind, name))
            if len(self.points) % self.every:
                return False
            here, at = tree(self.root), f"point {len(self.points)} ({kind} {name})"
            self.kills += 1
            self.note(f"killed before {at}", here)
            if self._half is not None and self._half.is_file():
                half, whole = dict(here), self._half.read_bytes()
                half[self._half.relative_to(self.root).as_posix()] = whole[: len(whole) // 2]
                self.kills += 1
                self.note(f"killed in the midst of writing {self._half.name}, before {at}", half)
            self._half = None
            for error in ERRORS:
                if self._fails(error, at, here):
                    return True
        finally:
            self._inside = False
        return False

    def after(self, kind: str, path: Any) -> None:
        """Note that a change was made."""
        if self._inside or self.child or not self._ours(path):
            return
        if kind in ("open", "tensors"):
            self._half = Path(os.path.abspath(path))
        if len(self.points) % self.every == 0:
            self._inside = True
            self.kills += 1
            self.note(f"killed after point {len(self.points)} ({kind})", tree(self.root))
            self._inside = False

    def _fails(self, error: str, at: str, here: Tree) -> bool:
        """Let a child go on with an error; True in the child."""
        self.failures += 1
        places, unseen = positions(), {p: p.read_bytes() for p in self.root.rglob("*") if p.name in UNSEEN}
        if (child := os.fork()) == 0:
            self.child, self.armed = True, error
            return True
        _, status = os.waitpid(child, 0)
        for number, place in places.items():
            os.lseek(number, place, os.SEEK_SET)
        end = {0: "done all the same", 2: "one line", 3: "one line"}.get(
            os.waitstatus_to_exitcode(status), "traceback"
        )
        self.ends[end] = self.ends.get(end, 0) + 1
        self.note(f"{error} at {at}: {end}", tree(self.root))
        put(self.root, here)
        for (
            path,
            data,
        ) in unseen.items():  # as the lock of a learner that is being prepared, which is about to be synced
            path.write_bytes(data)
        return False

    def _ours(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        place = os.path.abspath(os.fspath(path))
        return place.startswith(f"{self.root}{os.sep}") and os.path.basename(place) not in UNSEEN

    def error(self, path: Any) -> OSError:
        number = getattr(errno, str(self.armed))
        return OSError(number, os.strerror(number), os.fspath(path))

    # --- what is wrapped ---------------------------------------------------------------------------------------------

    def wrapped(self, kind: str, function: Callable[..., Any], at: int = 0) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            path = args[at]
            if isinstance(path, int):
                path = os.readlink(f"/proc/self/fd/{path}")
            if self.child and not self._ours(path) and kind in ("unlink", "remove", "rmdir"):
                return None  # what lies elsewhere is still the parent's
            if self.point(kind, path):
                raise self.error(path)
            found = function(*args, **options)
            self.after(kind, path)
            return found

        return call

    def opened(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wxa+"):
                return function(file, mode, *args, **options)
            if self.point("open", file):
                if self.armed == "EROFS":
                    raise self.error(file)
                raw = io.BufferedWriter(Failing(file, self.error(file)))
                return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8")
            found = function(file, mode, *args, **options)
            self.after("open", file)
            return found

        return call

    def tensors(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, path: Any, *args: Any, **options: Any) -> Any:
            if self.point("tensors", path):
                raise SafetensorError(f"I/O error: {self.error(path).strerror} (os error {self.error(path).errno})")
            function(tensors, path, *args, **options)
            self.after("tensors", path)

        return call


def positions() -> dict[int, int]:
    """Return how far open files have been read: a child reads on in the same files."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) <= 2:  # what a child says is to be read
            continue
        try:
            found[int(name)] = os.lseek(int(name), 0, os.SEEK_CUR)
        except OSError:  # a pipe, or a descriptor that is gone
            continue
    return found


class Failing(io.FileIO):
    """Takes half of what is written, and fails."""

    def __init__(self, path: Any, error: OSError) -> None:
        super().__init__(path, "w")
        self.error, self.failed = error, False

    def write(self, data: Any) -> int:
        if not self.failed:
            self.failed = True
            super().write(bytes(data)[: len(bytes(data)) // 2])
        raise self.error


@contextmanager
def watched(faults: Faults) -> Iterator[None]:
    """Wrap the functions by which files are changed, for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync", "truncate", "chmod"):
            # Of a renaming, the new name: what was there before is what may be lost.
            at = 1 if name in ("replace", "rename") else 0
            patch.setattr(os, name, faults.wrapped(name, getattr(os, name), at))
        patch.setattr(io, "open", faults.opened(io.open))
        patch.setattr(builtins, "open", faults.opened(builtins.open))
        for module in (adapters, memory, checkpoint, removal):
            patch.setattr(module, "save_file", faults.tensors(module.save_file))
        patch.setattr(modeling_utils, "safe_save_file", faults.tensors(modeling_utils.safe_save_file))
        # Names in place of descriptors, and writes in place of what the kernel copies by itself.
        patch.setattr(shutil, "_use_fd_functions", False)
        patch.setattr(shutil, "_USE_CP_SENDFILE", False)
        yield


def run(act: Callable[[], object], faults: Faults) -> None:
    """Do an act with every fault; in a child, end with how it ended."""
    status = 1
    try:
        with watched(faults):
            act()
        faults.note("done", tree(faults.root)) if not faults.child else None
        status = 0
    except EverloraError as error:
        if not faults.child:
            raise
        status = error.status
    except BaseException:
        if not faults.child:
            raise
        import traceback

        traceback.print_exc()
    finally:
        if faults.child:
            os._exit(status)


def killed(act: Callable[[], object], root: Path, number: int) -> bool:
    """Do an act in a process of its own, which is killed at its n-th change of a folder; return whether it was.

    What Python has not given to the system by then is lost, as in no copy of the folder that is made from inside.
    """
    if (child := os.fork()) == 0:
        faults = Deadly(root, number)
        run(act, faults)  # ends the process
    _, status = os.waitpid(child, 0)
    end = os.waitstatus_to_exitcode(status)
    if end not in (0, -signal.SIGKILL):
        raise AssertionError(f"the process ended with {end}")
    return end == -signal.SIGKILL


class Deadly(Faults):
    """Ends its process at one of the changes, half of a file that is being written at that moment included."""

    def __init__(self, root: Path, number: int) -> None:
        super().__init__(root)
        self.number, self.child = number, True

    def point(self, kind: str, path: Any) -> bool:
        if self._ours(path) and not (kind == "mkdir" and os.path.isdir(path)):
            self.points.append((kind, os.fspath(path)))
            if len(self.points) == self.number:
                os.kill(os.getpid(), signal.SIGKILL)
        return False

    def after(self, kind: str, path: Any) -> None:
        """Note nothing: nobody would read it."""
