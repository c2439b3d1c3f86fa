"""Settings of a learner and of a run: defaults < recipe file < command line, checked once, written resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from everlora.core.errors import ConfigError, nearest
from everlora.data.template import Template

S = TypeVar("S", bound="Strict")
Schedule = Literal["full", "forward", "diagonal", "final"]


class Strict(BaseModel):
    """Unknown keys are refused, nothing is edited afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSpec(Strict):
    """LoRA, with PEFT's names (`peft.LoraConfig`)."""

    r: int = Field(8, ge=1)
    lora_alpha: float = Field(32, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | str | None = None
    """None takes PEFT's table (query and value projections of attention)."""


class EvalSpec(Strict):
    """When and how answers are scored."""

    schedule: Schedule = "full"
    """``full``: after each task, every task seen; ``forward``: the next one too, and all of them before the first,
    which forward transfer is made of; ``diagonal``: the task just learned, all at the end; ``final``."""
    scoring: Literal["generate", "labels"] = "generate"
    """``generate``: greedy answer, exact match after normalisation; ``labels``: the most likely label of the task."""
    batch_size: int = Field(32, ge=1)
    split: Literal["test", "dev"] = "test"
    general: Literal["builtin", "lm-eval"] | None = None
    """How general ability is measured before the first task and after each, see `everlora.evaluation.general`."""
    general_tasks: list[str] | None = None
    """Tasks of lm-evaluation-harness."""

    @field_validator("general", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value in ("off", False) else value  # YAML reads off as false

    @model_validator(mode="after")
    def _named(self) -> EvalSpec:
        if (self.general == "lm-eval") != bool(self.general_tasks):
            raise ValueError("general_tasks names tasks of lm-evaluation-harness, and general: lm-eval needs some")
        return self


class ProtocolRef(Strict):
    """The protocol that settings are from, after they were taken over; what they come to has a hash of its own."""

    name: str | None = None
    hash: str | None = None
    """Of the protocol as it is written, see `everlora.settings.protocol`; other settings make another."""
    rate: Literal["form", "given"] = "given"
    """Whether the learning rate is that of the method's form, so that methods of one protocol may differ in it."""


class LearnerSpec(Strict):
    """What a learner is."""

    model: str
    method: str = "ella"
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    device: str = "auto"
    past: Literal["auto", "fold", "factors"] = "auto"
    prompt: str | None = None
    """How a row of text and label is shown, see `everlora.data.template`; None for the default."""
    max_source_length: int | None = Field(None, ge=8)
    max_new_tokens: int = Field(50, ge=1)
    lora: LoraSpec = LoraSpec()
    train: dict[str, Any] = Field(default_factory=dict)
    """Names of `transformers.TrainingArguments`, passed through."""
    train_of: dict[str, dict[str, Any]] | None = None
    """The same for single tasks by name, over ``train``; tasks that are learned all at once have only ``train``."""
    evaluation: EvalSpec = EvalSpec()
    max_train_samples: int | None = Field(None, ge=1)
    max_eval_samples: int | None = Field(None, ge=1)
    max_train_per_class: int | None = Field(None, ge=1)
    max_eval_per_class: int | None = Field(None, ge=1)
    metric: str | None = None
    """How every task is scored (`everlora.metrics.answers`); None for each task's own metric."""
    seed: int = 0
    protocol: ProtocolRef | None = None

    @field_validator("prompt")
    @classmethod
    def _readable(cls, prompt: str | None) -> str | None:
        if prompt is not None:
            Template(prompt)
        return prompt


class RunSpec(LearnerSpec):
    """A learner that follows a benchmark's stream."""

    benchmark: str = "builtin"
    order: int | str | None = None
    """A number, or another paper's name for one (``sapt-4``), which is written as the number."""
    data_dir: Path | None = None
    tasks: list[str] | None = None
    stream_seed: int = 0
    """Seed of the rows of built-in tasks; data that are read do not depend on it."""


TRAIN_DEFAULTS: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_steps": 10,
}
"""Section 0.3 of our method notes: AdamW, constant rate, no warm-up, no decay, clipping at 1.

The rate itself is that of the method's form (`everlora.core.adapter.Adapter.learning_rate`)."""


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge nested layers, the later ones winning; None in a later layer means that it says nothing."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, dict):
                below = out.get(key)
                out[key] = merge(below if isinstance(below, dict) else {}, value)
            elif value is not None:
                out[key] = value
    return out


def check(kind: type[S], values: dict[str, Any]) -> S:
    """Build a spec from plain values.

    Raises:
        ConfigError: an unknown key (with the nearest one) or a value of the wrong kind.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        # A mistyped name is the cause, the field that it leaves empty the effect.
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown setting {where!r}{nearest(str(first['loc'][-1]), _fields(kind))}") from None
        raise ConfigError(f"setting {where!r}: {first['msg']} (got {first['input']!r})") from None


def _fields(kind: type[BaseModel]) -> list[str]:
    names = list(kind.model_fields)
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _fields(field.annotation)
    return names
