"""Reports progress of long work, and where its time goes, kind by kind.

The command line draws bars and ends with the costs; a program that uses the library sees nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainerCallback

from everlora.runtime.memory import peak_memory
from everlora.runtime.stopping import END
from everlora.runtime.time_left import Plan
from everlora.runtime.tracking import Tracking

logger = logging.getLogger("everlora")


class Progress:
    """Is a listener that shows nothing but log lines; override what is to be shown.

    Attributes:
        callbacks: of transformers, which see every event of every task's Trainer.
        left: stages that are still to be done.
        guesses: whether it wants to be told how long a plan may take, for which a few rows are read.
    """

    callbacks: Sequence[TrainerCallback] = ()
    left: int = 0
    guesses: bool = False

    def begin_run(self, name: str, number: int, total: int) -> None:
        """Be told that one of several runs begins, counted from 1."""

    def plan(self, plan: Plan) -> None:
        """Be told what is to be done, stage by stage, before the first begins."""
        self.left = len(plan.works)
        for tracking in self._trackings():
            tracking.begin(plan)

    def end_stage(self, scores: Mapping[str, float]) -> None:
        """End a stage: it is learned, and scored as far as that is wanted, in percent by task."""
        self.left -= 1
        for tracking in self._trackings():
            tracking.scored(scores)
            if not self.left:
                tracking.close()

    def _trackings(self) -> list[Tracking]:
        return [one for one in self.callbacks if isinstance(one, Tracking)]

    def phase(self, label: str, total: int) -> None:
        """Begin a piece of work of ``total`` steps (training steps, or rows to answer)."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` of the current phase as done."""

    def done(self) -> None:
        """End the current phase."""

    def info(self, line: str) -> None:
        """Log a line of information."""
        logger.info(line)

    def warn(self, line: str) -> None:
        """Log a line that the user should not miss."""
        logger.warning(line)


class StepCallback(TrainerCallback):
    """Passes the Trainer's steps on to a `Progress`, and asks for a checkpoint where the process is to end."""

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress = progress
        self.label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.phase(self.label, int(state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        newest = {name: value for log in state.log_history[-2:] for name, value in log.items()}
        shown = [(f"loss {newest['loss']:.3f}") if "loss" in newest else "",
                 f"penalty {newest['rho']:.2f} of the gradient" if "rho" in newest else ""]  # fmt: skip
        self.progress.advance(1, " · ".join(filter(None, shown)))
        # None is at the end of a task: the Trainer would go on from it by one step too many.
        if END.requested and state.global_step < state.max_steps:
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.done()


def warn(progress: Progress, task: str, warnings: list[str]) -> list[str]:
    """Pass the warnings of a task on to ``progress``, and return them."""
    for warning in warnings:
        progress.warn(f"task {task!r}: {warning}")
    return warnings


Kind = Literal["training", "penalties", "answering", "data", "saving"]


@dataclass
class Costs:
    """Holds the seconds of each kind; what is nested in another kind counts for its own alone.

    Attributes:
        began: when counting began.
        seconds: by kind.
    """

    began: float = field(default_factory=time.perf_counter)
    seconds: dict[Kind, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    @contextmanager
    def spent(self, kind: Kind) -> Iterator[None]:
        """Count the time of a block."""
        began, inside = time.perf_counter(), len(self._inside)
        self._inside.append(0.0)
        try:
            yield
        finally:
            took, nested = time.perf_counter() - began, sum(self._inside[inside:])
            del self._inside[inside:]
            self.seconds[kind] = self.seconds.get(kind, 0.0) + took - nested
            if self._inside:
                self._inside[-1] += took

    def describe(self, kept: int) -> str:
        """Say in two lines of at most 80 columns what a run has cost so far.

        Args:
            kept: bytes that the next task needs.
        """
        rest = time.perf_counter() - self.began - sum(self.seconds.values())
        each = [f"{kind} {_short(self.seconds.get(kind, 0.0))} s" for kind in ORDER]
        peak = peak_memory()
        memory = f"; {peak / 1e9:.2f} GB of memory at most" if peak is not None else ""
        last = f"{each.pop()}, all else {_short(max(0.0, rest))} s{memory}, {kept / 1e6:.2f} MB kept"
        return f"cost: {', '.join(each)},\n{last}"


def _short(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"


ORDER: tuple[Kind, ...] = ("training", "penalties", "answering", "data", "saving")
COSTS = Costs()
"""Of this process."""


@contextmanager
def spent(kind: Kind) -> Iterator[None]:
    """Count the time of a block, or of a function that it decorates, among the costs of this process."""
    with COSTS.spent(kind):
        yield
