"""What it means to read an input well: it is read, or refused in one line, in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import re
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import everlora
from everlora import EverloraError

SECONDS = 5.0
"""Of processor time, so that a busy machine fails nothing."""
LONGEST = 2000
"""Characters of a refusal."""
MEMORY = 1 << 30
"""Bytes that reading may take beyond what the process has already; only where `bounded_memory` is entered."""

RAW = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What a terminal takes for a command, or for a new line."""
ROOM = Path(everlora.__file__).parent


class TooSlow(BaseException):
    """Reading took more than `SECONDS`; no `except Exception` may catch it."""


@dataclass(frozen=True)
class Fault:
    """An input that was neither read nor refused as it should be.

    Attributes:
        kind: an exception's name, or ``slow``, ``long``, ``raw``, ``lines``.
        where: the innermost place inside everlora, as ``file.py:function``.
        detail: the first words of what was seen.
    """

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.where}: {self.detail}"


def place_of(error: BaseException) -> str:
    """The innermost function of everlora on the way to ``error``."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOM)]
    return f"{Path(ours[-1].filename).relative_to(ROOM)}:{ours[-1].name}" if ours else "outside"


@contextlib.contextmanager
def bounded_time(seconds: float = SECONDS) -> Iterator[None]:
    """Stop the block after so many seconds of processor time."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def bounded_memory(more: int = MEMORY) -> Iterator[None]:
    """Let this process grow by so many bytes and no further; for a process of its own."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def judged(read: Callable[[Path], Any]) -> Fault | None:
    """Let ``read`` read in an empty folder; what is wrong with how it ended, or None."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        with bounded_time():
            read(folder)
    except EverloraError as error:
        return fault_of(str(error), place_of(error))
    except TooSlow as error:
        return Fault("slow", place_of(error), f"more than {SECONDS:.0f} s")
    except (Exception, SystemExit) as error:
        return Fault(type(error).__name__, place_of(error), " ".join(str(error).split())[:200])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def fault_of(message: str, where: str) -> Fault | None:
    """What is wrong with a refusal: longer than a screen, or with characters that a terminal obeys."""
    if len(message) >= LONGEST:
        return Fault("long", where, f"{len(message)} characters: {message[:80]!r}")
    if RAW.search(message):
        return Fault("raw", where, repr(message[:200]))
    return None


def command(*argv: str) -> None:
    """The command line in this process.

    Raises:
        EverloraError: it ended with one line on stderr; anything else on stderr is a wrong end.
    """
    from everlora.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(argv))
        except SystemExit as end:
            if end.code:
                lines = err.getvalue().splitlines()
                last = lines[-1] if lines else ""
                if not last.startswith("everlora: "):
                    raise RuntimeError(f"ended with {end.code} and {err.getvalue()[-200:]!r}") from None
                raise EverloraError(last) from None
    if RAW.search(out.getvalue().replace("\n", "")):
        raise RuntimeError(f"raw characters on stdout: {RAW.search(out.getvalue().replace(chr(10), ''))!r}")
