"""Several processes: the one file that calls collectives. In a single process every function here is the identity."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor


def _state() -> PartialState:
    """Return accelerate's view of the processes."""
    # Without an accelerator, accelerate takes several processes for one until it is told that the CPU is meant.
    return PartialState(cpu=not torch.accelerator.is_available())


def is_main() -> bool:
    """Return whether this process writes files and prints.

    >>> is_main()
    True
    """
    return bool(_state().is_main_process)


def size() -> int:
    """Return the number of processes.

    >>> size()
    1
    """
    return int(_state().num_processes)


def device() -> torch.device:
    """Return the device of this process: its own GPU if there are several, else MPS or the CPU."""
    return torch.device(_state().device)


def total(tensor: Tensor) -> Tensor:
    """Return the sum of one tensor over all processes, the same on each.

    >>> total(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return tensor if size() == 1 else reduce(tensor, reduction="sum")


def wait() -> None:
    """Wait until all processes have come to this call."""
    _state().wait_for_everyone()
