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

KEPT = "finished tasks are kept, go on with the same command and --resume"
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
        help="Python file with methods, benchmarks or metrics of your own. Its code is run.",
        rich_help_panel="method",
    ),
]


@contextmanager
def interruptible(message: str = KEPT) -> Iterator[None]:
    """Do the work of a command, and turn Ctrl-C into an error that says what to do once the work is put away.

    Some library code makes another error of the KeyboardInterrupt that Ctrl-C raises inside it; that is one, too.
    """
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    gc.freeze()  # accelerate collects garbage after every training; what was imported need not be looked at again
    gc.enable()
    with handling(press):
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            if pressed or isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; {message}") from None
            raise


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Give Ctrl-C to a handler for a while, unless it is ignored, as in processes that were started with nohup."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_run(run: Path) -> None:
    """Refuse a folder that holds no run at once: importing torch takes seconds."""
    from everlora.archive.folder import read_run

    read_run(run)
