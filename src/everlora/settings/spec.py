"""Defines the settings of a learner and of a run: each once, here; the run's folder holds them resolved.

A field's type, default and `Setting` are all there is to a setting; see `everlora.settings.setting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from everlora.core.errors import ConfigError, nearest
from everlora.data.template import Template
from everlora.settings.lora import LoraSpec
from everlora.settings.setting import Setting, Strict, suggestion
from everlora.settings.training import Training, TrainingArgumentsInput

S = TypeVar("S", bound="Strict")
RawSettings = Mapping[str, object]
"""Settings as a file or a command line names them, before they are merged and checked: they may hold anything."""
Schedule = Literal["full", "forward", "diagonal", "final"]
DEFAULT_MODEL = "smollm2-135m"
"""The model of commands that name none."""
DTYPES = ("auto", "float32", "bfloat16", "int8", "nf4")
"""Types of weights; `everlora.runtime.precision` knows what they are in torch."""


class EvalSpec(Strict):
    """Holds when and how answers are scored."""

    schedule: Annotated[
        Schedule, Setting("evaluation", "When tasks are scored.", options=("--eval-schedule",), value="WHEN")
    ] = "full"
    """``full``: after each task, every task seen; ``forward``: the next one too, and all of them before the first,
    which forward transfer is made of; ``diagonal``: the task just learned, all at the end; ``final``."""
    scoring: Annotated[
        Literal["generate", "labels"],
        Setting("evaluation", "How to answer.", options=("--eval-scoring",), value="HOW"),
    ] = "generate"
    """``generate``: greedy answer, exact match after normalisation; ``labels``: the most likely label of the task."""
    batch_size: Annotated[
        int,
        Setting(
            "evaluation",
            "Rows answered at once.",
            changes="record",
            options=("--per-device-eval-batch-size",),
            value="N",
            aka=("eval_batch_size", "per_device_eval_batch_size"),
        ),
    ] = Field(32, ge=1)
    split: Annotated[
        Literal["test", "dev"],
        Setting("evaluation", "Scored rows; dev to tune.", options=("--eval-split",), value="ROWS"),
    ] = "test"
    general: Annotated[
        Literal["builtin", "lm-eval"] | None,
        Setting("evaluation", "General ability.", changes="record", value="NAME", unset="off"),
    ] = None
    """How general ability is measured before the first task and after each, see `everlora.evaluation.general`."""
    general_tasks: Annotated[
        list[str] | None,
        Setting("evaluation", "Tasks of lm-eval, or files: a,b.yaml.", changes="record", value="A,B"),
    ] = None

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
    """Names the protocol that settings are from, after they were taken over; they have a hash of their own."""

    name: str | None = None
    hash: str | None = None
    """Of the protocol as it is written, see `everlora.settings.protocol`; other settings make another."""
    rate: Literal["form", "given"] = "given"
    """Whether the learning rate is that of the method's form, so that methods of one protocol may differ in it."""


class LearnerSpec(Strict):
    """Holds the settings of a learner."""

    model: Annotated[
        str,
        Setting(
            "model",
            "Base model: a name, folder, GGUF file or hub id.",
            changes="record",
            compared=True,
            options=("-m", "--model", "--model-name-or-path"),
            value="MODEL",
            default=DEFAULT_MODEL,
            aka=("model_name", "model_name_or_path", "base_model"),
        ),
    ]
    method: Annotated[
        str,
        Setting(
            "method", "name, name(option=value), or several: a+b.", changes="nothing", compared=True, value="METHOD"
        ),
    ] = "ella"
    revision: Annotated[
        str | None,
        Setting(
            "model",
            "Revision of a hub model.",
            changes="record",
            compared=True,
            options=("--model-revision",),
            value="REV",
            unset="the newest",
        ),
    ] = None
    trust_remote_code: Annotated[
        bool, Setting("model", "Run code that comes with a model.", changes="record", compared=True)
    ] = False
    pooling: Annotated[
        Literal["mean", "cls", "head"] | None,
        Setting("model", "Of encoders.", value="HOW", unset="as trained"),
    ] = None
    """``mean`` over a text's tokens, its first token (``cls``), or what the checkpoint's ``head`` makes of them."""
    head: Annotated[
        Literal["names"] | None,
        Setting("model", "Rows of encoders' heads.", value="HOW", unset="trained"),
    ] = None
    """Rows of a classification head: one per label that is trained, or the fixed embeddings of the labels' names."""
    dtype: Annotated[str, Setting("model", "auto, float32, bfloat16, int8, nf4.", changes="record", value="TYPE")] = (
        "auto"  # in the fingerprint of every score, so not in the protocol
    )
    device: Annotated[
        str, Setting("model", "auto, cpu, cuda or mps.", changes="record", compared=True, value="DEVICE")
    ] = "auto"
    past: Annotated[
        Literal["auto", "fold", "fold-bf16", "factors"],
        Setting("method", "Past as.", changes="record", value="HOW"),
    ] = "auto"
    """Folded into fp32 weights, or beside quantised ones as ``factors``; ``fold-bf16``: into bf16, as two matrices."""
    feature_cache: Annotated[
        str | None,
        Setting("model", "Folder of frozen states.", changes="nothing", compared=True, value="DIR", unset="off"),
    ] = None
    """Where runs share what layers below the adapted ones make of texts, 4 GiB at most; nothing that is learned or
    answered depends on it. A sweep of runs with ``lora.layers`` has one of its own while it runs."""
    prompt: Annotated[
        str | None,
        Setting("data", "Of {instruction} {labels} {text} {task}.", value="TEXT", unset="ours"),
    ] = None
    """How a row of text and label is shown, see `everlora.data.template`; None for the default."""
    prompt_style: Annotated[
        Literal["chat", "plain"] | None,
        Setting("data", "How prompts are put.", value="HOW", unset="plain"),
    ] = None
    """``chat``: a row is a user's message in the model's chat template, as servers put it; ``plain``: as it is."""
    max_source_length: Annotated[
        int | None, Setting("data", "Tokens of a prompt; texts are cut.", value="N", unset="the model's")
    ] = Field(None, ge=8)
    max_new_tokens: Annotated[
        int | None, Setting("evaluation", "Longest free answer.", value="N", unset="50, or as the targets")
    ] = Field(None, ge=1)
    """None for 50 tokens, or more where the targets of a task's training rows are longer."""
    lora: LoraSpec = LoraSpec()
    train: Annotated[TrainingArgumentsInput, Training] = Field(default_factory=dict)
    """Names of `transformers.TrainingArguments`, passed through."""
    train_of: Annotated[
        dict[str, TrainingArgumentsInput] | None,
        Setting("training", "Training arguments of single tasks, by name.", options=()),
    ] = None
    """The same for single tasks by name, over ``train``; tasks that are learned all at once have only ``train``."""
    save_steps: Annotated[
        int | None,
        Setting("training", "Steps of a checkpoint.", changes="nothing", compared=True, value="N", unset="10 minutes"),
    ] = Field(None, ge=1)
    evaluation: EvalSpec = EvalSpec()
    max_train_samples: Annotated[int | None, Setting("data", "Training rows per task.", value="N", unset="all")] = (
        Field(None, ge=1)
    )
    max_eval_samples: Annotated[int | None, Setting("data", "Test rows per task.", value="N", unset="all")] = Field(
        None, ge=1
    )
    max_train_per_class: Annotated[int | None, Setting("data", "Training rows per class.", value="N", unset="all")] = (
        Field(None, ge=1)
    )
    max_eval_per_class: Annotated[int | None, Setting("data", "Test rows per class.", value="N", unset="all")] = Field(
        None, ge=1
    )
    metric: Annotated[
        str | None, Setting("evaluation", "Score every task by this.", value="NAME", unset="each task's own")
    ] = None
    """How every task is scored (`everlora.metrics.answers`); None for each task's own metric."""
    seed: Annotated[
        int, Setting("training", "Seed of adapters and order of rows.", changes="record", compared=True, value="N")
    ] = 0
    protocol: Annotated[
        ProtocolRef | None,
        Setting(
            "method", "Settings of a protocol: name, or YAML file.", changes="nothing", compared=True, value="NAME"
        ),
    ] = None

    @field_validator("feature_cache", mode="before")
    @classmethod
    def _no_cache(cls, value: Any) -> Any:
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ConfigError("the feature cache needs the name of a folder, or off")
        return "off" if value is False else value  # YAML reads off as false

    @field_validator("dtype")
    @classmethod
    def _known(cls, dtype: str) -> str:
        if dtype not in (*DTYPES, "fp32", "bf16"):
            raise ConfigError(f"unknown dtype {dtype!r}{nearest(dtype, DTYPES)}")
        return dtype

    @field_validator("prompt")
    @classmethod
    def _readable(cls, prompt: str | None) -> str | None:
        if prompt is not None:
            Template(prompt)
        return prompt


class RunSpec(LearnerSpec):
    """Holds the settings of a learner that follows a benchmark's stream."""

    benchmark: Annotated[
        str,
        Setting(
            "data",
            "Name, folder of tasks, or YAML file.",
            changes="record",
            compared=True,
            value="NAME",
            aka=("dataset", "stream"),
        ),
    ] = "builtin"
    order: Annotated[
        int | str | None,
        Setting("data", "Task order: 4, or sapt-5.", changes="record", compared=True, value="N", unset="the first"),
    ] = None
    """A number, or another paper's name for one (``sapt-4``), which is written as the number."""
    data_dir: Annotated[
        Path | None,
        Setting(
            "data", "Folder with the benchmark's data.", changes="nothing", compared=True, value="DIR", unset="the hub"
        ),
    ] = None
    tasks: Annotated[
        list[str] | None,
        Setting(
            "data", "Only these tasks, in this order.", changes="nothing", compared=True, value="A,B", unset="all"
        ),
    ] = None
    stream_seed: Annotated[
        int, Setting("data", "Seed of rows made, or drawn by a limit.", changes="record", compared=True, value="N")
    ] = 0
    """Seed of the rows of built-in tasks, and of the rows that a limit takes of data that are read."""


def merge(*layers: RawSettings) -> RawSettings:
    """Merge nested layers, the later ones winning; None in a later layer means that it says nothing."""
    out: dict[str, object] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, dict):
                below = out.get(key)
                out[key] = merge(below if isinstance(below, dict) else {}, value)
            elif value is not None:
                out[key] = value
    return out


def check(kind: type[S], values: RawSettings) -> S:
    """Build a spec from plain values.

    Raises:
        ConfigError: an unknown key (with the one that was meant, where that can be guessed), or a wrong value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        # A mistyped name is the cause, the field that it leaves empty the effect.
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        keys = tuple(str(part) for part in first["loc"])
        where = ".".join(keys)
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown setting {where!r}{suggestion(keys[-1], kind, keys[:-1])}") from None
        raise ConfigError(
            f"setting {where!r}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})"
        ) from None
