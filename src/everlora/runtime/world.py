"""The one file that speaks distributed. Alone, everything here is the identity."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor


def _state() -> PartialState:
    # Without an accelerator, accelerate takes several processes for one until it is told that the CPU is meant.
    return PartialState(cpu=not torch.accelerator.is_available())


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return bool(_state().is_main_process)


def size() -> int:
    """Number of processes."""
    return int(_state().num_processes)


def device() -> torch.device:
    """The device of this process: its own GPU if there are several, else MPS or the CPU."""
    return torch.device(_state().device)


def total(tensor: Tensor) -> Tensor:
    """The sum of one tensor over all processes, the same on each."""
    return tensor if size() == 1 else reduce(tensor, reduction="sum")


def wait() -> None:
    """Wait for all processes."""
    _state().wait_for_everyone()
