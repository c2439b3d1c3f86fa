"""What the engine says while it works. The command line draws bars; a library stays silent."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger("everlora")


class Progress:
    """Silent base; override what is to be shown."""

    def phase(self, label: str, total: int) -> None:
        """A piece of work of ``total`` steps begins (training steps, or rows to answer)."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` of the current phase are done."""

    def done(self) -> None:
        """The current phase is over."""

    def info(self, line: str) -> None:
        """A line worth keeping."""
        logger.info(line)

    def warn(self, line: str) -> None:
        """A line that the user should not miss."""
        logger.warning(line)


class StepCallback(TrainerCallback):
    """Tells a `Progress` of the Trainer's steps."""

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress = progress
        self.label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.phase(self.label, int(state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = next((log["loss"] for log in reversed(state.log_history) if "loss" in log), None)
        self.progress.advance(1, f"loss {loss:.3f}" if loss is not None else "")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.done()


def warn(progress: Progress, task: str, warnings: list[str]) -> list[str]:
    """Pass warnings of a task on, and return them."""
    for warning in warnings:
        progress.warn(f"task {task!r}: {warning}")
    return warnings
