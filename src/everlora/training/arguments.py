"""Checks which training arguments of transformers may be set, and to what."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from everlora.core.errors import ConfigError, nearest
from everlora.settings.setting import refuse_booleans, settings_of, suggestion
from everlora.settings.spec import RunSpec
from everlora.settings.training import TRAIN_DEFAULTS, Training

OWNED = {"output_dir", "seed", "data_seed", "fp16", "report_to", "remove_unused_columns", "save_strategy", "use_cpu",
         "average_tokens_across_devices", "label_names"}  # fmt: skip
"""Training arguments that the engine sets itself."""
INSTEAD = {
    "report_to": "name trackers with --report-to, in Python with report_to=",
    "seed": "it is the setting 'seed' (--seed)",
    "use_cpu": "it is the setting 'device' (--device cpu)",
    "output_dir": "it is --out, in Python out=",
}
"""Where else those that a user may mean are set."""
UNSUPPORTED = {
    **dict.fromkeys(
        ("do_train", "do_eval", "do_predict", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
         "prediction_loss_only", "per_device_eval_batch_size", "batch_eval_metrics", "include_for_metrics",
         "fp16_full_eval", "bf16_full_eval"),
        "tasks are scored as the 'evaluation' settings say",
    ),
    **dict.fromkeys(
        ("resume_from_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint",
         "enable_jit_checkpoint", "push_to_hub"),
        "finished tasks are kept in the run folder, see --resume",
    ),
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed", "parallelism_config", "accelerator_config"),
        "the only way to several devices is one process for each, started by torchrun",
    ),
    **dict.fromkeys(
        ("label_smoothing_factor", "use_liger_kernel", "liger_kernel_config"), "the loss is everlora's own"
    ),
    "auto_find_batch_size": "a task that is begun again would not be the same task; lower the batch size",
}  # fmt: skip
"""Training arguments that would be ignored or would break what is promised, and why."""
UNSUPPORTED_BEGINNINGS = {
    "eval_": UNSUPPORTED["do_eval"],
    "save_": UNSUPPORTED["resume_from_checkpoint"],
    "hub_": UNSUPPORTED["push_to_hub"],
}
ABOVE_ZERO = ("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps")
"""Training arguments that make no sense at zero; so is max_steps, where -1 leaves the number to the epochs."""
NOT_NEGATIVE = ("learning_rate", "head_learning_rate", "weight_decay", "warmup_steps", "max_grad_norm")


def checked(name: str, value: Any) -> Any:
    """Check one training argument by the annotation that transformers gives it, and return its value.

    Raises:
        ConfigError: it is unknown, not the user's to set, or has a value that cannot be used.
    """
    if name in OWNED:
        raise ConfigError(f"the training argument {name!r} is set by everlora; {INSTEAD.get(name, 'leave it out')}")
    kinds = _OWN if name in _OWN else _kinds()
    if name not in kinds:
        word = str(name)
        meant = _setting(word) if "." in word else suggestion(word, Training) or nearest(word, _settable())
        raise ConfigError(f"unknown training argument {name!r}{meant}")
    if why := _unsupported(name):
        raise ConfigError(f"the training argument {name!r} is not supported by everlora: {why}")
    kind: Any = kinds[name]
    try:
        refuse_booleans(kind, value)
        found: Any = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"training argument {name!r}: {error.errors()[0]['msg']} (got {value!r})") from None
    except ValueError as error:
        raise ConfigError(f"training argument {name!r}: {error} (got {value!r})") from None
    if isinstance(found, float) and not math.isfinite(found):
        raise ConfigError(f"training argument {name!r} must be a finite number (got {value!r})")
    if (name in ABOVE_ZERO and found <= 0) or (name == "max_steps" and found <= 0 and found != -1):
        raise ConfigError(f"training argument {name!r} must be above zero (got {value!r})")
    if name == "logging_steps" and found != int(found):
        raise ConfigError(f"training argument {name!r} must be a whole number (got {value!r})")
    if name in NOT_NEGATIVE and found is not None and found < 0:
        raise ConfigError(f"training argument {name!r} must not be negative (got {value!r})")
    if name == "optim" and (str(value) in ("lomo", "adalomo") or str(value).endswith("_layerwise")):
        raise ConfigError(
            f"the optimizer {value!r} steps during the backward pass, before any penalty; choose another"
        )
    return found if isinstance(value, str) else value  # YAML reads 1e-4, without a dot, as text


def check_together(train: Mapping[str, object], of: Mapping[str, Mapping[str, object]] | None) -> None:
    """Refuse training arguments of a run, and those ``of`` single tasks over them, that cannot stand together.

    Raises:
        ConfigError: one of them makes no sense without another.
    """
    for together in (train, *({**train, **own} for own in (of or {}).values())):
        for name in ("dataloader_persistent_workers", "dataloader_prefetch_factor"):
            if together.get(name) and not together.get("dataloader_num_workers"):
                raise ConfigError(f"training argument {name!r} needs dataloader_num_workers above zero; set that, too")
        # transformers passes over it without a word.
        schedule = together.get("lr_scheduler_type", TRAIN_DEFAULTS["lr_scheduler_type"])
        if together.get("warmup_steps") and schedule in ("constant", "reduce_lr_on_plateau", "greedy"):
            raise ConfigError(
                f"training argument 'warmup_steps' does nothing where lr_scheduler_type is {schedule!r}; set "
                f"'constant_with_warmup', or another schedule"
            )


def _unsupported(name: str) -> str | None:
    beginning = next((why for start, why in UNSUPPORTED_BEGINNINGS.items() if name.startswith(start)), None)
    return UNSUPPORTED.get(name, beginning)


def _setting(name: str) -> str:
    """Return a hint at the setting of a run that a name with dots means; empty if there is none."""
    *group, last = name.split(".")
    for one in settings_of(RunSpec):
        if one.path[:-1] == tuple(group) and last in (one.path[-1], *one.setting.aka):
            option = f" ({one.options[0]})" if one.options else ""
            return f", which would be the setting {'.'.join(one.path)!r}{option}"
    return ""


def _settable() -> list[str]:
    return [name for name in _kinds() if name not in OWNED and _unsupported(name) is None]


_OWN: Mapping[str, object] = {one.path[-1]: one.type for one in settings_of(Training)}
"""Arguments whose types are known without transformers, which takes a second to import."""


@functools.cache
def _kinds() -> Mapping[str, object]:
    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments)}
