"""Defines options and habits that commands share."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from everlora.core.errors import Interrupted, printable
from everlora.runtime.stopping import END

KEPT = "finished tasks are kept, go on with the same command and --resume"
ENDING = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")]
"""Signals that end a command: Ctrl-C, a system that stops it, a terminal that is closed."""
Level = Literal["debug", "info", "warning", "error"]


def say(text: str, *, err: bool = False) -> None:
    """Print a text on stdout, or on stderr; nothing in it commands the terminal, whoever named what it names."""
    typer.echo(printable(text), err=err)


def _run(files: list[Path] | None) -> list[Path] | None:
    """Run the files at once, before any name is looked up."""
    if files:
        from everlora.core import plugins

        with interruptible("nothing was begun"):  # Ctrl-C is told from a KeyboardInterrupt that the file raises
            for file in files:
                plugins.load(Path(file))
    return files


def _log(level: str | None) -> str | None:
    """Show what everlora and the libraries under it log, from this level up."""
    if level:
        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger().setLevel(level.upper())
        os.environ["TRANSFORMERS_VERBOSITY"] = level  # read when transformers is imported, which is later
    return level


def _log_more(verbose: bool) -> bool:
    if verbose:
        _log("info")
    return verbose


Json = Annotated[bool, typer.Option("--json", help="Print JSON as the last line of stdout.", rich_help_panel="output")]
Out = Annotated[
    Path, typer.Option("-o", "--out", "--output-dir", metavar="DIR", help="Folder to write.", rich_help_panel="output")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is there in --out.", rich_help_panel="output")]
Mixed = Annotated[bool, typer.Option("--mixed", help="Allow runs of different protocols.")]
MixedFingerprints = Annotated[
    bool, typer.Option("--mixed-fingerprints", help="Allow scores of other precisions or versions.")
]
Baseline = Annotated[
    str | None, typer.Option(metavar="METHOD", help="Set every method against this one, not the best.")
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="No progress, only warnings and results.", rich_help_panel="output")
]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=_log_more, help="As --log-level info.", rich_help_panel="output"),
]
LogLevel = Annotated[
    Level | None,
    typer.Option(
        "--log-level",
        callback=_log,
        metavar="LEVEL",
        help="Show logs: debug, info, warning, error.",
        rich_help_panel="output",
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_run,
        help="Own methods, metrics or data. Its code is run.",
        rich_help_panel="method",
    ),
]


@contextmanager
def interruptible(message: str = KEPT) -> Iterator[None]:
    """Do the work of a command, and turn Ctrl-C into an error that says what to do once the work is put away.

    The signals by which a system ends a process, or a terminal goes, are treated alike, but for a training, which
    writes a checkpoint first. Some library code makes another error of the KeyboardInterrupt that is raised inside it;
    that is one, too.
    """
    pressed: int | None = None

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = number
        # Whoever presses Ctrl-C waits for the prompt; a system that ends a process gives it time to put work away.
        if number == signal.SIGINT or not END.request():
            raise KeyboardInterrupt

    gc.freeze()  # accelerate collects garbage after every training; what was imported need not be looked at again
    gc.enable()
    with handling(press):
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            if pressed is not None or isinstance(error, KeyboardInterrupt):
                done = f"{error}; " if isinstance(error, KeyboardInterrupt) and str(error) else ""
                raise Interrupted(f"interrupted; {done}{message}", pressed) from None
            raise


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Give the signals that end a command to a handler, but those that are ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in ENDING}
    heeded = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        heeded = {}
    for number in heeded:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in heeded.items():
            signal.signal(number, old)


def check_run(run: Path) -> None:
    """Refuse a folder that holds no run at once: importing torch takes seconds."""
    from everlora.archive.folder import read_run

    read_run(run)
