"""Names settings with their types for editors and type checkers; what they mean stands in `everlora.settings.spec`.

`tests/unit/test_typed_settings.py` holds every name and type to the specs, so that a setting is still defined once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from everlora.settings.spec import Schedule
from everlora.settings.training import Training, TrainingArgumentsInput


class LoraSettings(TypedDict, total=False):
    """Holds fields of `everlora.settings.lora.LoraSpec`."""

    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str] | str | None
    layers: str | None
    exclude_modules: list[str] | str | None
    layers_to_transform: list[int] | int | None
    layers_pattern: list[str] | str | None
    use_rslora: bool | None
    rank_pattern: dict[str, int] | None
    alpha_pattern: dict[str, float] | None
    init_lora_weights: Literal["gaussian"] | None


class EvaluationSettings(TypedDict, total=False):
    """Holds fields of `everlora.settings.spec.EvalSpec`."""

    schedule: Schedule
    scoring: Literal["generate", "labels"]
    batch_size: int
    split: Literal["test", "dev"]
    general: Literal["builtin", "lm-eval"] | None
    general_tasks: list[str] | None


class LearnerSettings(TypedDict, total=False):
    """Holds fields of `everlora.settings.spec.LearnerSpec`, but for model and method."""

    revision: str | None
    trust_remote_code: bool
    pooling: Literal["mean", "cls", "head"] | None
    head: Literal["names"] | None
    dtype: str
    device: str
    past: Literal["auto", "fold", "fold-bf16", "factors"]
    feature_cache: str | None
    prompt: str | None
    prompt_style: Literal["chat", "plain"] | None
    max_source_length: int | None
    max_new_tokens: int | None
    lora: LoraSettings
    train: Training | TrainingArgumentsInput
    train_of: Mapping[str, Training | TrainingArgumentsInput] | None
    save_steps: int | None
    evaluation: EvaluationSettings
    max_train_samples: int | None
    max_eval_samples: int | None
    max_train_per_class: int | None
    max_eval_per_class: int | None
    metric: str | None
    seed: int
    protocol: str | Mapping[str, object] | None


class SettingsHere(TypedDict, total=False):
    """Holds settings of one process, which no folder records: where a learner is opened."""

    model: str
    device: str
    trust_remote_code: bool
