"""A trace of training steps is written whatever is left to train, and recording ends where training breaks off."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from everlora.runtime.profiling import FILE, SKIPPED, Trace


def test_a_resumed_task_of_few_steps_is_recorded(tmp_path: Path) -> None:
    trace, state = Trace(tmp_path), TrainerState(max_steps=9, global_step=9 - SKIPPED)
    trace.on_train_begin(None, state, None)
    for _ in range(SKIPPED):
        trace.on_step_end(None, state, None)
    trace.on_train_end(None, state, None)
    assert (tmp_path / FILE).is_file()


def test_nothing_is_recorded_any_more_once_training_broke_off(tmp_path: Path) -> None:
    # A process that ended while something was recorded crashed with a segmentation fault.
    profiled: Any = torch.autograd._profiler_enabled
    with closing(Trace(tmp_path)) as trace:
        trace.on_train_begin(None, TrainerState(max_steps=9), None)
        for _ in range(SKIPPED + 1):
            trace.on_step_end(None, None, None)
        assert profiled()
    assert not profiled()
