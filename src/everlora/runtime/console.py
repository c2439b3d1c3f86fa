"""Shows progress: rich on a terminal, plain lines elsewhere. All goes to stderr; stdout belongs to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from transformers import TrainerCallback

from everlora.core.errors import printable
from everlora.runtime import world
from everlora.runtime.progress import Progress
from everlora.runtime.time_left import TimeLeft, Work

err = Console(stderr=True)
WORTH_A_WORD = 60.0
"""Seconds below which nobody need be told how long a run still takes."""


class ConsoleProgress(Progress):
    """Shows bars on a terminal; a line per finished stage everywhere, or only warnings where that is enough.

    Bars stand while it is open as a context; without one, while something is done.
    """

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
        self.open = False
        self.time_left: TimeLeft | None = None
        self.announced = False

    def __enter__(self) -> ConsoleProgress:
        self.open = True
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.bars.stop()

    def plan(self, works: Sequence[Work]) -> None:
        super().plan(works)
        self.time_left, self.announced = TimeLeft(works), False

    def end_stage(self, scores: Mapping[str, float]) -> None:
        super().end_stage(scores)
        if self.time_left is not None:
            self.time_left.end_stage()
            if left := self._left():
                self.info(left)

    def _left(self) -> str:
        """Say how long the run still takes, where that is known and worth a word."""
        left = self.time_left
        seconds = left.left() if left is not None else None
        if left is None or seconds is None or seconds < WORTH_A_WORD:
            return ""
        minutes = round(seconds / 60)
        time = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
        return f"{'about' if left.complete else 'at least'} {time} to go"

    def phase(self, label: str, total: int) -> None:
        self.done()
        if self.time_left is not None:
            self.time_left.begin(label, total)
        if not self.open:
            self.bars.start()
        self.current = self.bars.add_task(printable(f"{self.prefix}{label}"), total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.time_left is not None:
            self.time_left.advance(steps)
            left = self._left()
            if left and not self.announced:  # as soon as it is known, for whoever must decide whether to wait
                self.announced = True
                count = len(self.time_left.works)
                self.info(f"{count} task{'' if count == 1 else 's'} to learn, {left}")
            note = " · ".join(filter(None, (note, left)))
        if self.current is not None:
            self.bars.update(self.current, advance=steps)
            if note:
                self.bars.update(self.current, note=printable(note))

    def done(self) -> None:
        if self.current is not None:
            self.bars.remove_task(self.current)
            self.current = None
            if not self.open and not self.bars.disable:
                self.bars.stop()

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


def watched(progress: Progress | None, callbacks: Sequence[TrainerCallback] = ()) -> Progress:
    """Return what shows how far a learner is, and calls callbacks of transformers.

    Args:
        progress: by default bars where somebody looks, on a terminal and in a notebook, and log lines elsewhere.
        callbacks: behind those that it has.
    """
    shown = progress or (ConsoleProgress() if err.is_terminal or err.is_jupyter else Progress())
    shown.callbacks = (*shown.callbacks, *callbacks)
    return shown
