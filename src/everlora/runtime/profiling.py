"""Writes a trace of a few training steps, for chrome://tracing or https://ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule
from transformers import TrainerCallback

SKIPPED, STEPS = 2, 5
"""Steps that warm up, and steps behind them that are recorded: a whole run would fill a disk."""
FILE = "trace.json"


class Trace(TrainerCallback):
    """Records the third to seventh step of the first task that is trained, or as many as it has.

    Args:
        folder: where ``trace.json`` is written.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._running: profile | None = None
        self.done = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.done:
            return
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        few = 0 < int(state.max_steps) - int(state.global_step) <= SKIPPED  # a resumed task has fewer left
        phases = schedule(wait=0, warmup=0 if few else SKIPPED, active=STEPS, repeat=1)
        self._running = profile(activities=kinds, schedule=phases, on_trace_ready=self._write, record_shapes=True)
        self._running.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._running is not None:
            self._running.step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()
        self.done = True

    def close(self) -> None:
        """Stop what records: a process that ends while it does so, as an interrupted one would, crashes."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _write(self, found: profile) -> None:
        if not self.done:
            found.export_chrome_trace(str(self.file))
            self.done = True
