"""Makes the arguments of transformers' Trainer: the user's over ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import TrainingArguments

from everlora.core.errors import ConfigError
from everlora.runtime import world
from everlora.settings.training import TrainingArgumentsInput


def arguments(train: TrainingArgumentsInput, *, folder: str, seed: int, cpu: bool) -> TrainingArguments:
    """Build TrainingArguments of the user's values on top of ours; clipping is left to the chain.

    Raises:
        ConfigError: transformers refuses a value, or values together.
    """
    world.check_precision(os.environ, train)
    ours: TrainingArgumentsInput = {
        "output_dir": folder,
        # Finished tasks are committed, and a task that broke off is learned anew: nobody would read a checkpoint.
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        # Features are for our collator; Trainer would drop those that are no arguments of the model's forward.
        "remove_unused_columns": False,
        "label_names": ["labels"],
        # A loss that is not finite must be seen; Trainer would log the mean of earlier ones in its place.
        "logging_nan_inf_filter": False,
        # A loss that has run away did so within a few steps: what it was at first says so.
        "logging_first_step": True,
        "average_tokens_across_devices": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": cpu,
        "seed": seed,
        "data_seed": seed,
    }
    with refusals():
        args = TrainingArguments(**{**ours, **train, "max_grad_norm": 0.0})
    # One process, one GPU: seeing several, Trainer would wrap the model in nn.DataParallel, which scatters a batch,
    # while a family's mask of labels is of the whole batch. Once `device` is known, nothing sets the number again.
    _ = args.device
    args._n_gpu = min(args.n_gpu, 1)
    return args


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what transformers refuses of the user's arguments (a value, a package) into an error of one line."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(f"these training arguments cannot be used: {reason}") from error
