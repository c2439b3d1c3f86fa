"""Talks to other processes: the one file that calls collectives. In a single process all here is the identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from accelerate import DistributedType, PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor

from everlora.core.errors import ConfigError, EverloraError

R = TypeVar("R")
YES = ("1", "true", "t", "yes", "y", "on")
"""Spellings that accelerate reads as true."""
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism inside a model",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker",
}
"""Variables by which a config file of accelerate turns on an engine that keeps gradients to itself."""
STARTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables that every launcher of several processes sets at least one of."""
PLACED = (*STARTED, "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_TORCH_DEVICE")
"""Variables that say which process of how many this is, and on which device."""
REPLICAS = (DistributedType.NO, *(one for one in DistributedType if one.name.startswith("MULTI_")))
"""What may run a training: a process by itself, or replicas whose gradients are averaged."""
TWO = "torchrun --nproc-per-node 2 -m everlora run …"
"""How two processes are started."""


def check_engine(environ: Mapping[str, str]) -> None:
    """Refuse what accelerate's environment wants and everlora cannot do.

    Raises:
        ConfigError: an engine under which no gradient is seen between backward and optimiser, so that penalties,
            projections and clipping would do nothing; or several processes of which only one was started.
    """
    for variable, engine in ENGINES.items():
        if environ.get(variable, "").lower() in YES:
            raise ConfigError(
                f"accelerate's environment asks for {engine} ({variable}), under which no method sees a gradient; "
                f"use neither its config file nor its flag: several devices are one process each, {TWO}"
            )
    # `accelerate launch --num_processes 2` without a GPU starts one process, and leaves this trace of the intent.
    if "ACCELERATE_MIXED_PRECISION" in environ and "MASTER_ADDR" in environ and not any(v in environ for v in STARTED):
        raise ConfigError(
            f"accelerate launch was to start several processes, and has started one, so that a step would have too "
            f"few rows; start them by {TWO}, or unset MASTER_ADDR if one is what you want"
        )


def check_precision(environ: Mapping[str, str], train: Mapping[str, object]) -> None:
    """Refuse precision and compilation that accelerate's environment brings in and no setting of the run names.

    Raises:
        ConfigError: which.
    """
    for variable, settings in (
        ("ACCELERATE_MIXED_PRECISION", ("bf16",)),
        ("ACCELERATE_DYNAMO_BACKEND", ("torch_compile", "torch_compile_backend")),
    ):
        value = environ.get(variable, "no")
        if value.lower() not in ("no", "") and not any(train.get(one) for one in settings):
            raise ConfigError(
                f"accelerate's environment asks for {variable}={value}, which would stand in no record of the run; "
                f"leave it out, or say --set {settings[0]}=true"
            )


def check_running(engine: DistributedType) -> None:
    """Refuse the engine under which a training is about to run, however it came to be chosen.

    Raises:
        ConfigError: it keeps gradients to itself.
    """
    if engine not in REPLICAS:
        raise ConfigError(
            f"the training would run under {engine.value}, where no method sees a gradient; several devices are one "
            f"process each, {TWO}"
        )


def _state() -> PartialState:
    """Return accelerate's view of the processes."""
    check_engine(os.environ)
    known = PartialState._shared_state
    try:
        if not known and "RANK" in os.environ and int(os.environ["RANK"]) >= int(os.environ.get("WORLD_SIZE", "1")):
            raise ValueError("RANK counts from 0 up to WORLD_SIZE - 1")  # or it waits for a meeting without it
        if not known and (chosen := os.environ.get("ACCELERATE_TORCH_DEVICE")):
            torch.empty(1, device=chosen).tolist()  # accelerate takes it without a look
        # Without an accelerator, accelerate takes several processes for one unless it is set to use the CPU.
        return PartialState(cpu=not torch.accelerator.is_available())
    except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        PartialState._reset_state()  # half of it would count as all of it
        found = [f"{name}={os.environ[name]}" for name in PLACED if name in os.environ]
        raise ConfigError(
            f"the environment ({', '.join(found) or 'of this process'}) does not say which process and device this "
            f"is: {str(error).strip().splitlines()[0]}; unset these variables, or start several processes by {TWO}"
        ) from error


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


def on_main(action: Callable[[], R]) -> R | None:
    """Let the main process do something that others wait for; what it is refused, all are refused in the same words.

    Returns:
        What the action returns on the main process, None on the others.

    Raises:
        EverloraError: the action's.
    """
    found, error = None, None
    if is_main():
        try:
            found = action()
        except EverloraError as raised:
            error = raised
    if size() > 1:
        # Text as numbers: what travels as an object is pickled.
        text = str(error).encode() if error else b""
        length = broadcast(torch.tensor([len(text)], device=device()))
        content = torch.zeros(int(length), dtype=torch.uint8, device=device())
        if error:
            content = torch.tensor(list(text), dtype=torch.uint8, device=device())
        if int(length):
            words = bytes(broadcast(content).tolist()).decode()
            raise error or EverloraError(words)
    if error:
        raise error
    return found


def lost_another(error: BaseException) -> bool:
    """Return whether an error of a collective says that another process has ended."""
    return size() > 1 and isinstance(error, RuntimeError) and any(w in str(error) for w in ("gloo", "NCCL", "peer"))
