"""The training arguments that everlora has an option, a default or a rule for; others are passed through unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypedDict

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


class Training(TypedDict, total=False):
    """Names and types of `transformers.TrainingArguments`, with what everlora knows of them.

    The types are those of transformers, written here so that settings are read without importing it.
    """

    lr_scheduler_type: Annotated[
        str, Setting("training", "Schedule of the rate.", options=(), default="constant", aka=("scheduler",))
    ]
    num_train_epochs: Annotated[
        float, Setting("training", "Epochs per task.", value="X", default=1, aka=("epochs", "num_epochs"))
    ]
    max_steps: Annotated[
        int,
        Setting(
            "training",
            "Optimiser steps per task, instead of epochs.",
            value="N",
            unset="by epochs",
            aka=("steps", "num_steps", "train_steps"),
        ),
    ]
    learning_rate: Annotated[
        float, Setting("training", "Learning rate.", value="X", unset="the method's", aka=("lr", "rate", "peak_lr"))
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


TRAIN_DEFAULTS: TrainingArgumentsInput = {
    one.path[-1]: one.default for one in settings_of(Training) if one.default is not None
}
"""AdamW at a constant rate, without warm-up or decay, clipped at 1.

The rate itself is that of the method's form (`everlora.core.adapter.Adapter.learning_rate`)."""
