"""A setting is defined once: whatever is made of the definitions agrees with them."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_type_hints

import pytest
from transformers import TrainingArguments

from everlora.archive.identity import Composition, identity
from everlora.core.errors import ConfigError
from everlora.learner.resolve import resolve
from everlora.settings import protocol
from everlora.settings.setting import SECTIONS, settings_of
from everlora.settings.spec import EvalSpec, LoraSpec, RunSpec, check
from everlora.settings.training import HEAD_RATE, TRAIN_DEFAULTS, Training

M: dict[str, Any] = {"model": "tiny-llama"}
KNOWN = settings_of(RunSpec)


def test_every_field_is_a_setting_or_a_group_of_them() -> None:
    top = {one.path[0] for one in KNOWN}
    assert top == set(RunSpec.model_fields)
    for group, kind in (("lora", LoraSpec), ("evaluation", EvalSpec)):
        assert {one.path[1] for one in KNOWN if one.path[0] == group} == set(kind.model_fields)
    assert {one.path[1] for one in KNOWN if one.path[0] == "train"} == set(Training.__annotations__)


def test_names_on_the_command_line_are_unique() -> None:
    flags = Counter(option for one in KNOWN for option in one.options)
    assert {flag for flag, times in flags.items() if times > 1} == set()
    assert all(one.setting.help and one.setting.section in SECTIONS for one in KNOWN)


def test_training_arguments_have_the_types_of_transformers() -> None:
    theirs = get_type_hints(TrainingArguments)
    for one in settings_of(Training):
        if one.path == (HEAD_RATE,):
            continue
        kind = theirs[one.path[0]]
        assert kind == one.type or (one.path == ("lr_scheduler_type",) and str in kind.__args__)


def test_defaults_are_those_of_the_definitions() -> None:
    spec = resolve(RunSpec, M)
    plain = spec.model_dump()
    for one in KNOWN:
        value: Any = plain
        for key in one.path:
            value = value.get(key)
        if one.path[0] not in ("model", "protocol") and one.path[-1] != "learning_rate":
            assert value == one.default, one.path
    assert spec.train == {**TRAIN_DEFAULTS, "learning_rate": 3e-3}


OTHER: dict[tuple[str, ...], Any] = {
    ("model",): "tiny-t5", ("method",): "o-lora", ("revision",): "x", ("trust_remote_code",): True,
    ("dtype",): "float32", ("device",): "cpu", ("past",): "fold", ("prompt",): "{text}", ("max_source_length",): 99,
    ("max_new_tokens",): 7, ("lora", "r"): 4, ("lora", "lora_alpha"): 3, ("lora", "lora_dropout"): 0.5,
    ("pooling",): "cls", ("head",): "names", ("lora", "layers"): "top:1",
    ("lora", "exclude_modules"): ["x"], ("lora", "layers_to_transform"): [0], ("lora", "layers_pattern"): "h",
    ("lora", "use_rslora"): True, ("lora", "rank_pattern"): {"x": 2}, ("lora", "alpha_pattern"): {"x": 2},
    ("lora", "init_lora_weights"): "gaussian", ("lora", "target_modules"): "all-linear",
    ("train", "lr_scheduler_type"): "linear",
    ("train", "num_train_epochs"): 3, ("train", "max_steps"): 3, ("train", "learning_rate"): 0.3,
    ("train", "head_learning_rate"): 0.3,
    ("train", "per_device_train_batch_size"): 3, ("train", "gradient_accumulation_steps"): 3,
    ("train", "ddp_find_unused_parameters"): True,
    ("train", "weight_decay"): 0.3, ("train", "max_grad_norm"): 0.3, ("train", "logging_steps"): 3,
    ("train_of",): {"news": {"max_steps": 3}}, ("evaluation", "schedule"): "final",
    ("evaluation", "scoring"): "labels", ("evaluation", "batch_size"): 3, ("evaluation", "split"): "dev",
    ("evaluation", "general"): "builtin", ("evaluation", "general_tasks"): ["x"], ("max_train_samples",): 3,
    ("max_eval_samples",): 3, ("max_train_per_class",): 3, ("max_eval_per_class",): 3, ("metric",): "rouge_l",
    ("seed",): 3, ("protocol",): {"name": "x"}, ("benchmark",): "standard", ("order",): 2, ("data_dir",): "x",
    ("feature_cache",): "x", ("prompt_style",): "chat", ("save_steps",): 7, ("tasks",): ["news"], ("stream_seed",): 3,
}  # fmt: skip
"""Another value of every setting."""


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def test_every_setting_has_another_value_to_try() -> None:
    assert OTHER.keys() == {one.path for one in KNOWN}


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: ".".join(one.path))
def test_a_setting_changes_what_it_says(one: Any) -> None:
    """Protocol hash and identity of a run, as they are computed, against the definition."""

    def made(*layers: dict[str, Any]) -> tuple[str, str]:
        spec = resolve(RunSpec, M, {"method": "ella"}, *layers)
        composition = Composition(name="ella", regime="sequence", consolidator="sum")
        return protocol.digest(spec.model_dump(mode="json"), 1e-3), identity(spec, composition)

    extra = {"evaluation": {"general": "lm-eval"}} if one.path[-1] == "general_tasks" else {}
    under = {"lora": {"layers_to_transform": [0]}} if one.path[-1] == "layers_pattern" else {}
    other = nested(one.path, OTHER[one.path])
    differs = tuple(a != b for a, b in zip(made(under), made(under, other, extra), strict=True))
    assert (
        differs == {"protocol": (True, True), "record": (False, True), "nothing": (False, False)}[one.setting.changes]
    )
    assert (one.path[0] in protocol.COMPARED) is one.setting.compared


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora": {"rank": 3}}, "unknown setting 'lora.rank'; did you mean 'r'?"),
        ({"lora": {"alpha": 3}}, "unknown setting 'lora.alpha'; did you mean 'lora_alpha'?"),
        ({"lora": {"dropuot": 3}}, "unknown setting 'lora.dropuot'"),
        ({"lora": {"learning_rate": 3}}, "unknown setting 'lora.learning_rate'; did you mean 'train.learning_rate'?"),
        ({"lora": {"lr": 3}}, "unknown setting 'lora.lr'; did you mean 'train.learning_rate'?"),
        ({"evaluation": {"rank": 3}}, "unknown setting 'evaluation.rank'; did you mean 'lora.r'?"),
        ({"lr": 3}, "unknown setting 'lr'; did you mean 'train.learning_rate'?"),
        ({"batch_size": 3}, "unknown setting 'batch_size'; did you mean 'train.per_device_train_batch_size'?"),
        ({"rank": 3}, "unknown setting 'rank'; did you mean 'lora.r'?"),
        ({"split": "dev"}, "unknown setting 'split'; did you mean 'evaluation.split'?"),
        ({"sed": 3}, "unknown setting 'sed'; did you mean 'seed'?"),
        ({"zzzz": 3}, "unknown setting 'zzzz'"),
    ],
)
def test_a_suggestion_comes_from_the_group_that_was_meant(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(RunSpec, {**M, **values})
    found = str(caught.value)
    assert found == words if words.endswith("?") else found.partition(";")[0] == words


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"),
        ("batch_size", "per_device_train_batch_size"),
        ("epochs", "num_train_epochs"),
        ("weight_deacy", "weight_decay"),
    ],
)
def test_a_training_argument_too(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown training argument '{typed}'; did you mean '{meant}'"):
        resolve(RunSpec, M, {"train": {typed: 1}})
