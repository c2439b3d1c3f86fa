"""Reports progress of long work: the command line draws bars, a program that uses the library sees nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

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
