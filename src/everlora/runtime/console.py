"""Shows progress: rich on a terminal, plain lines elsewhere. All goes to stderr; stdout belongs to results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from everlora.core.errors import printable
from everlora.runtime import world
from everlora.runtime.live_view import LiveView, in_words
from everlora.runtime.progress import Progress
from everlora.runtime.time_left import Plan, TimeLeft
from everlora.runtime.tracking import Tracking

err = Console(stderr=True)
WORTH_A_WORD = 60.0
"""Seconds below which nobody need be told how long a run still takes, and after which a line says how far it is."""


class ConsoleProgress(Progress):
    """Shows bars and the matrix on a terminal; elsewhere lines with their time; or only warnings where that is enough.

    Bars stand while it is open as a context; without one, while something is done.
    """

    def __init__(self, prefix: str = "", *, quiet: bool = False) -> None:
        self.prefix = prefix
        self.quiet = quiet
        self.guesses = not quiet
        self.bars = LiveView(err, disable=quiet or not err.is_terminal)
        self.current: Any = None
        self.open = False
        self.time_left: TimeLeft | None = None
        self.announced = False
        self.run, self.runs, self.name = 0, 0, ""
        self.durations: list[float] = []
        self._label, self._total, self._count, self._line_at = "", 0, 0, time.monotonic()

    def __enter__(self) -> ConsoleProgress:
        self.open = True
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.bars.stop()

    def begin_run(self, name: str, number: int, total: int) -> None:
        self.run, self.runs, self.name = number, total, name
        self.durations = [] if number == 1 else self.durations
        self.time_left, self.bars.rows = None, []
        self._head()

    def plan(self, plan: Plan) -> None:
        super().plan(plan)
        self.time_left, self.announced = TimeLeft(plan.works), False
        self.bars.plan, self.bars.rows = plan, list(plan.done)
        count = len(plan.works)
        if plan.guess is not None and plan.guess >= WORTH_A_WORD and count:
            runs = f"; {self.runs - self.run + 1} runs are to be made" if self.runs > self.run else ""
            took = in_words(plan.guess)
            self.info(
                f"{count} task{'' if count == 1 else 's'} to learn, roughly {took} by a look at a few rows{runs}"
            )
        self._head()

    def end_stage(self, scores: Mapping[str, float]) -> None:
        super().end_stage(scores)
        self.bars.rows.append(dict(scores))
        if self.time_left is not None:
            self.time_left.end_stage()
            if not self.left:
                self.durations.append(self.time_left.elapsed)
            if left := self._left():
                self.info(left)
        self._head()

    def _left(self) -> str:
        """Say how long the run still takes, and all runs, where that is known and worth a word."""
        left = self.time_left
        seconds = left.left() if left is not None else None
        if left is None or seconds is None:
            return ""
        prefix = "about" if left.complete else "at least"
        all_runs = self._all_runs(left.elapsed + seconds) + seconds
        words = f"{prefix} {in_words(seconds)} to go" if seconds >= WORTH_A_WORD else ""
        if self.runs > self.run and all_runs >= WORTH_A_WORD:
            words = f"{words}, {prefix} {in_words(all_runs)} for all {self.runs} runs".removeprefix(", ")
        return words

    def _all_runs(self, this: float) -> float:
        """Return the seconds of the runs behind this one, each as long as those so far, this one among them."""
        known = [*self.durations, this]
        return (self.runs - self.run) * sum(known) / len(known)

    def _head(self, left: str = "") -> None:
        """Set the line about the whole."""
        works = self.time_left.works if self.time_left is not None else []
        done = len(self.bars.rows)
        task = f"task {min(done + 1, done + self.left)} of {done + self.left}" if works else ""
        run = f"run {self.run} of {self.runs} ({self.name})" if self.runs > 1 else ""
        self.bars.head = printable(" · ".join(filter(None, (run, task, left))))

    def phase(self, label: str, total: int) -> None:
        self.done()
        self._label, self._total, self._count = label, total, 0
        if self.time_left is not None:
            self.time_left.begin(label, total)
        if not self.open:
            self.bars.start()
        self.current = self.bars.add_task(printable(f"{self.prefix}{label}"), total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._count += steps
        left = ""
        if self.time_left is not None:
            self.time_left.advance(steps)
            left = self._left()
            if left and not self.announced:  # as soon as it is known, for whoever must decide whether to wait
                self.announced = True
                count = len(self.time_left.works)
                self.info(f"{count} task{'' if count == 1 else 's'} to learn, {left}")
            self._head(left)
        if self.current is not None:
            self.bars.update(self.current, advance=steps)
            if note:
                self.bars.update(self.current, note=printable(note))
        if self.bars.disable and time.monotonic() - self._line_at >= WORTH_A_WORD:
            far = f"{self._label}: {self._count} of {self._total}"
            self.info(" · ".join(filter(None, (far, note, left))))

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
        self._line_at = time.monotonic()
        when = "" if err.is_terminal else f"{time.strftime('%H:%M:%S')} "
        err.print(printable(f"{when}{self.prefix}{line}"), markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        if not world.is_main():
            return
        shown = printable(f"warning: {self.prefix}{line}")
        err.print(shown, style="yellow", markup=False, highlight=False, soft_wrap=True)


def watched(
    progress: Progress | None, callbacks: Sequence[TrainerCallback] = (), report_to: str | Sequence[str] = ()
) -> Progress:
    """Return what shows how far a learner is, and calls callbacks of transformers.

    Args:
        progress: by default bars where somebody looks, on a terminal and in a notebook, and log lines elsewhere.
        callbacks: behind those that it has.
        report_to: trackers that get one run over all tasks.

    Raises:
        ConfigError: a tracker is not known, or not installed.
    """
    shown = progress or (ConsoleProgress() if err.is_terminal or err.is_jupyter else Progress())
    shown.callbacks = (*shown.callbacks, *callbacks, *trackers(report_to))
    return shown


def trackers(names: str | Sequence[str] | None) -> tuple[Tracking, ...]:
    """Return what reports to trackers, if any are named: a list, or a text with commas.

    Raises:
        ConfigError: one is not known, or not installed.
    """
    listed = names.replace(",", " ").split() if isinstance(names, str) else list(names or ())
    return (Tracking(listed),) if listed and listed != ["none"] else ()
