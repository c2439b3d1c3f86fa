"""Shows progress: rich on a terminal, plain lines elsewhere. All goes to stderr; stdout belongs to results."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from everlora.core.errors import printable
from everlora.runtime import world
from everlora.runtime.progress import Progress

err = Console(stderr=True)


class ConsoleProgress(Progress):
    """Shows bars on a terminal; a line per finished stage everywhere, or only warnings where that is enough."""

    def __init__(self, prefix: str = "", *, quiet: bool = False) -> None:
        self.prefix = prefix
        self.quiet = quiet
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=err,
            transient=True,
            disable=quiet or not err.is_terminal,
        )
        self.current: Any = None

    def __enter__(self) -> ConsoleProgress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def phase(self, label: str, total: int) -> None:
        self.done()
        self.current = self.bars.add_task(printable(f"{self.prefix}{label}"), total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.current is not None:
            self.bars.update(self.current, advance=steps)
            if note:
                self.bars.update(self.current, note=printable(note))

    def done(self) -> None:
        if self.current is not None:
            self.bars.remove_task(self.current)
            self.current = None

    def info(self, line: str) -> None:
        # With several processes each line would come as many times.
        if self.quiet or not world.is_main():
            return
        err.print(printable(f"{self.prefix}{line}"), markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        if not world.is_main():
            return
        shown = printable(f"warning: {self.prefix}{line}")
        err.print(shown, style="yellow", markup=False, highlight=False, soft_wrap=True)
