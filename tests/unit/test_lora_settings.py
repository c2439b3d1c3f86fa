"""Every field of `peft.LoraConfig` is taken, and does what PEFT makes of it, or is refused with its reason."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

import everlora
import tiny_runs
from everlora.adapters.lora import LoraBackend
from everlora.archive.identity import Composition, identity
from everlora.cli.options import SETTINGS, _value
from everlora.core.errors import ConfigError, EverloraError, FolderError, ModelError
from everlora.learner.resolve import resolve
from everlora.settings.lora import UNSUPPORTED, LoraSpec, checked_lora
from everlora.settings.spec import LearnerSpec

FIELDS = {field.name: field for field in dataclasses.fields(LoraConfig)}
DIAGONAL = {"evaluation": {"schedule": "diagonal"}}
IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


def test_every_field_of_peft_is_taken_or_refused_and_there_are_no_others() -> None:
    ours = {"layers"}  # which is written out as target_modules
    assert set(FIELDS) == (set(LoraSpec.model_fields) - ours) | set(UNSUPPORTED)
    assert not ours & set(FIELDS)
    assert not set(LoraSpec.model_fields) & set(UNSUPPORTED)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_a_field_that_is_not_supported_is_refused_with_its_reason_unless_it_asks_for_nothing(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(LearnerSpec, {"model": "tiny-llama", "lora": {name: "something"}})
    assert f"{name!r} is not supported by everlora: {UNSUPPORTED[name]}" in str(refused.value)
    if name not in ("runtime_config", "peft_type", "peft_version"):  # whose values are no plain data, or are its own
        field = FIELDS[name]
        value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        assert checked_lora({name: value}) == {}


@pytest.mark.parametrize("value", [False, "pissa", "olora", "eva", "orthogonal", "loftq"])
def test_factors_that_would_not_begin_at_the_base_model_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="a task must begin where the one before ended"):
        resolve(LearnerSpec, {"model": "tiny-llama", "lora": {"init_lora_weights": value}})


TAKEN: dict[str, dict[str, Any]] = {
    "names": {"target_modules": ["q_proj", "o_proj"]},
    "pattern": {"target_modules": r".*\.0\.self_attn\.(q|v)_proj"},
    "all": {"target_modules": "all-linear"},
    "exclude": {"target_modules": "all-linear", "exclude_modules": ["down_proj", "layers.0.self_attn.k_proj"]},
    "exclude-pattern": {"exclude_modules": r".*layers\.0\..*"},
    "layers": {"layers_to_transform": [1]},
    "layer-of": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, r"layers\.1.*v_proj": 3}, "alpha_pattern": {"v_proj": 32}},
    "rslora-patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 1.5}},
    "overlap": {
        "rank_pattern": {"q_proj": 2, r"layers\.1.*": 3},
        "alpha_pattern": {"v_proj": 400, r"model\.layers\.0.*": 4, ".*_proj": 16},
    },
    "gaussian": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("lora", TAKEN.values(), ids=TAKEN)
def test_what_is_taken_adapts_the_modules_of_peft_by_its_ranks_scales_and_first_values(
    lora: dict[str, Any], tmp_path: Path
) -> None:
    spec = resolve(LearnerSpec, {"model": "tiny-llama", "lora": {"r": 4, "lora_alpha": 8, **lora}})
    backend = LoraBackend(tiny_runs.fresh("tiny-llama"), spec.lora.model_dump(exclude_none=True))
    backend.attach(seed=3)
    torch.manual_seed(3)
    defaults = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    stock = get_peft_model(tiny_runs.fresh("tiny-llama").model, LoraConfig(**{**defaults, **lora}))
    layers = {n: m for n, m in stock.base_model.model.named_modules() if isinstance(m, LoraLayer)}
    found = backend.trainable()
    assert found.keys() == layers.keys()
    for name, layer in layers.items():
        assert found[name].scale == layer.scaling["default"]
        assert torch.equal(found[name].A, layer.lora_A["default"].weight)
        assert torch.equal(found[name].B, layer.lora_B["default"].weight)
    backend.save(tmp_path)
    backend.check_saved(tmp_path, backend.extract())
    # PEFT reads the same from the file, in which patterns are sorted.
    again = PeftModel.from_pretrained(tiny_runs.fresh("tiny-llama").model, tmp_path)
    read = {n: m.scaling["default"] for n, m in again.base_model.model.named_modules() if isinstance(m, LoraLayer)}
    assert read == {name: layer.scaling["default"] for name, layer in layers.items()}


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize(
    ("method", "lora"),
    [
        ("ella", TAKEN["patterns"]),
        ("o-lora", TAKEN["rslora-patterns"]),
        ("seqlora", TAKEN["overlap"]),
        ("inflora", TAKEN["patterns"]),
        ("seqlora", TAKEN["rslora"]),
        ("slao", TAKEN["rslora-patterns"]),
        ("inclora", {**TAKEN["pattern"], **TAKEN["gaussian"]}),
        ("inclora", TAKEN["exclude"]),
        ("lb-cl", TAKEN["exclude-pattern"]),
        ("sd-lora", TAKEN["layers"]),
    ],
)
def test_what_was_learned_comes_back_and_is_read_by_peft(method: str, lora: dict[str, Any], tmp_path: Path) -> None:
    given = {"lora": {"r": 4, "lora_alpha": 8, **lora}, **DIAGONAL}
    whole = tiny_runs.train_sequence("tiny-llama", method, tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-llama", method, tmp_path / "cut", progress=tiny_runs.Cut(), **given)
    resumed = tiny_runs.train_sequence("tiny-llama", method, tmp_path / "cut", resume=True, **given)
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0
    expected, plain = logits(whole.inference_model()), tiny_runs.fresh("tiny-llama").model
    assert not torch.allclose(logits(plain), expected, atol=1e-4), "nothing was learned"
    stock = PeftModel.from_pretrained(plain, tmp_path / "whole")
    assert {n for n, m in stock.base_model.model.named_modules() if isinstance(m, LoraLayer)} == {
        name for name in whole.newest or {} if "." in name
    }
    torch.testing.assert_close(logits(stock), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank_pattern": {"q_porj": 2}}, "'q_porj' in rank_pattern matches no module"),
        ({"alpha_pattern": {"k_proj": 2}}, "'k_proj' in alpha_pattern matches no module"),
        ({"alpha_pattern": {".*": 4, "v_proj": 2}}, "'v_proj' in alpha_pattern has no effect: '.*' stands before it"),
        ({"rank_pattern": {"q_proj": 4, r"layers\.0.*q_proj": 2}}, "in rank_pattern has no effect: 'q_proj'"),
        ({"layers_to_transform": [0, 7]}, "layers_to_transform names layer 7"),
        ({"exclude_modules": ["nothing"]}, "no module matches 'nothing' in exclude_modules"),
        ({"target_modules": ".*nothing.*"}, "cannot put an adapter on"),
        ({"rank_pattern": {"q_proj": 10**9}}, "adapters of rank 1000000000"),
    ],
)
def test_what_matches_nothing_is_named(lora: dict[str, Any], words: str) -> None:
    backend = LoraBackend(tiny_runs.fresh("tiny-llama"), {"r": 4, "lora_alpha": 8, **lora})
    with pytest.raises(ModelError) as refused:
        backend.attach(seed=0)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"target_modules": "q_(proj"}, "'q_(proj' is no pattern"),
        ({"rank_pattern": {"q[": 2}}, "'q[' is no pattern"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
        ({"layers_to_transform": 1, "target_modules": "all-linear"}, "needs 'target_modules' as names"),
        ({"layers_pattern": "layers"}, "means nothing without 'layers_to_transform'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(lora: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(LearnerSpec, {"model": "tiny-llama", "lora": lora})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("method", "lora"),
    [
        ("lb-cl", {"use_rslora": True}),
        ("sd-lora", {"rank_pattern": {"q_proj": 2}}),
        ("seqft", {"layers_to_transform": [0]}),
        ("progprompt", {"exclude_modules": ["q_proj"]}),
    ],
)
def test_a_form_refuses_settings_that_mean_nothing_to_it(method: str, lora: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EverloraError, match=f"'{next(iter(lora))}' means nothing to the adapter form"):
        everlora.Learner("tiny-llama", method=method, out=tmp_path / "run", lora=lora)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
        ("all-linear", "all-linear"),
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        (r".*\.[0-9]{1,2}\.mlp.*", r".*\.[0-9]{1,2}\.mlp.*"),
    ],
)
def test_target_modules_are_typed_as_names_or_as_a_pattern(typed: str, meant: Any) -> None:
    value = _value(SETTINGS["lora_target_modules"], typed)
    assert (
        checked_lora({"target_modules": value}) == checked_lora({"target_modules": typed}) == {"target_modules": meant}
    )


def test_the_order_of_patterns_is_a_part_of_what_a_run_is(tmp_path: Path) -> None:
    first, then = {"v_proj": 2, ".*_proj": 4}, {".*v_proj": 4, "v_proj": 2}
    ids = set()
    for number, patterns in enumerate((first, dict(reversed(first.items())), then)):
        spec = resolve(LearnerSpec, {"model": "tiny-llama", "lora": {"alpha_pattern": patterns}})
        ids.add(identity(spec, Composition.of(everlora.parse("seqlora").describe())))
        assert len(ids) == number + 1


def test_a_scale_that_reads_back_as_another_is_not_learned(tmp_path: Path) -> None:
    backend = LoraBackend(tiny_runs.fresh("tiny-llama"), {"r": 4, "lora_alpha": 8})
    backend.attach(seed=0)
    backend.save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 16}))
    with pytest.raises(FolderError, match="reads back as something else"):
        backend.check_saved(tmp_path, backend.extract())
    overlap = {"v_proj": 2, ".*_proj": 4}
    path.write_text(json.dumps({**json.loads(path.read_text()), "alpha_pattern": overlap}))
    with pytest.raises(FolderError, match="their order is lost"):
        backend.load(tmp_path)


def test_layers_to_transform_says_what_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"takes numbers such as \[0, 1\], not '0,1'"):
        checked_lora({"layers_to_transform": "0,1"})
    with pytest.raises(ConfigError, match=r"not 'all-linear'; give 'layers' \(--lora-layers 0-1\)"):
        checked_lora({"layers_to_transform": [1], "target_modules": "all-linear"})
    with pytest.raises(ConfigError, match=r"not '\.\*q_proj'; write the layers into the pattern"):
        checked_lora({"layers_to_transform": [1], "target_modules": ".*q_proj"})
    found = resolve(LearnerSpec, {"model": "tiny-llama"}, {"lora": {"target_modules": "all-linear", "layers": "1-1"}})
    assert (found.lora.target_modules, found.lora.layers) == ("all-linear", "1-1")
