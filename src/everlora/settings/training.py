"""Defines the training arguments that everlora has a default or a rule for; others are passed on as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, TypedDict

from everlora.core.errors import ConfigError
from everlora.settings.setting import Setting, settings_of

TrainingArgumentsInput = dict[str, object]
"""Keywords of `transformers.TrainingArguments`: which there are, and of what types, is for transformers to say."""


def numeric_argument(train: Mapping[str, object], name: str, default: float | None = None) -> float:
    """Return a training argument that is a number; ``default`` where it is not set.

    Raises:
        ConfigError: it is none.
    """
    value = train.get(name, default)
    if not isinstance(value, str | int | float):
        raise ConfigError(f"the training argument {name!r} must be a number (got {value!r})")
    return float(value)


HEAD_RATE: Final = "head_learning_rate"
"""The one training argument that is not transformers', which has one rate for all that is trained."""


class Training(TypedDict, total=False):
    """Holds names and types of `transformers.TrainingArguments`, with what everlora knows of them, and one of ours.

    The types are those of transformers, written here so that settings are read without importing it.
    """

    lr_scheduler_type: Annotated[
        str, Setting("training", "Schedule of the rate.", options=(), default="constant", aka=("scheduler",))
    ]
    num_train_epochs: Annotated[
        float,
        Setting("training", "Epochs per task.", value="X", unset="by its rows", aka=("epochs", "num_epochs")),
    ]
    max_steps: Annotated[
        int,
        Setting(
            "training",
            "Optimiser steps per task.",
            value="N",
            unset="by epochs",
            aka=("steps", "num_steps", "train_steps"),
        ),
    ]
    learning_rate: Annotated[
        float, Setting("training", "Learning rate.", value="X", unset="the method's", aka=("lr", "rate", "peak_lr"))
    ]
    head_learning_rate: Annotated[
        float | None,
        Setting(
            "training", "Learning rate of a head that is trained.", options=(), unset="the same", aka=("head_lr",)
        ),
    ]
    per_device_train_batch_size: Annotated[
        int,
        Setting(
            "training",
            "Rows per process and micro-batch.",
            value="N",
            default=8,
            aka=("batch_size", "train_batch_size", "bs", "batch"),
        ),
    ]
    gradient_accumulation_steps: Annotated[
        int, Setting("training", "Micro-batches per step.", value="N", default=1, aka=("grad_accum", "accumulation"))
    ]
    weight_decay: Annotated[float, Setting("training", "Weight decay.", options=(), default=0.0)]
    max_grad_norm: Annotated[
        float, Setting("training", "Norm at which gradients are clipped.", options=(), default=1.0, aka=("clip",))
    ]
    logging_steps: Annotated[
        float, Setting("training", "Steps between logged losses.", options=(), default=10, changes="record")
    ]
    ddp_find_unused_parameters: Annotated[
        bool | None,
        Setting("training", "Look for parameters without use.", options=(), changes="nothing", unset="the form's"),
    ]


MIN_STEPS = 48
"""Steps that a task gets at least, where nobody sets epochs or steps and `MAX_EPOCHS` allows it.

Measured on a small encoder and four tasks of 256 rows: 32 steps of 8 rows were too few whatever the scale and the rate
(46 % right after learning); with 48 steps of 16 rows a task was learned as well as by an adapter of its own (66 %)."""
MAX_EPOCHS = 10
"""Epochs that a task gets at most by that rule: a handful of rows is known by heart long before its 48th step."""


def epochs_by_size(rows: int, batch: int) -> int:
    """Return how many epochs a task gets where nobody sets epochs or steps: as many as make `MIN_STEPS` steps.

    >>> [epochs_by_size(rows, batch=8) for rows in (20, 96, 120, 384, 10_000)]
    [10, 4, 4, 1, 1]

    Args:
        rows: of the task itself; rows of earlier tasks that are learned again do not count, so that every method sees
            a task equally often.
        batch: rows of a whole step, over all micro-batches and processes.
    """
    return min(max(1, math.ceil(MIN_STEPS * batch / max(1, rows))), MAX_EPOCHS)


TRAIN_DEFAULTS: TrainingArgumentsInput = {
    one.path[-1]: one.default for one in settings_of(Training) if one.default is not None
}
"""AdamW at a constant rate, without warm-up or decay, clipped at 1.

How many epochs there are depends on a task's rows (`epochs_by_size`). The rate is that of the method's form
(`everlora.core.adapter.Adapter.learning_rate`)."""
