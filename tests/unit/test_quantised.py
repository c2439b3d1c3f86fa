"""Quantised bases: where nothing can be learned on them, what they leave in a record, and exports of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

import tiny_runs
from everlora import load
from everlora.archive.fingerprints import digest
from everlora.core.errors import ConfigError, ModelError
from everlora.core.expressions import parse
from everlora.export import model as exporting
from everlora.models.environment import fingerprint
from everlora.models.weights import check_quantization

FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def saved(folder: Path, **changes: Any) -> Path:
    base = tiny_runs.fresh("tiny-llama")
    base.model.save_pretrained(folder)
    base.family.processor.save_pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_packed_weights_are_refused_where_they_pass_no_gradient(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="packed by bitsandbytes, whose CPU kernels pass no gradient back"):
        load(str(saved(tmp_path, quantization_config=FOUR_BITS)), device="cpu")
    check_quantization("m", LlamaConfig(quantization_config=FOUR_BITS), torch.device("cuda"))
    check_quantization("m", LlamaConfig(), torch.device("cpu"))


def test_a_fingerprint_says_how_the_base_is_quantised() -> None:
    base = tiny_runs.fresh("tiny-llama")
    before = fingerprint(base, "labels", None)
    assert "quantization" not in before.plain()
    base.model.config.quantization_config = FOUR_BITS
    after = fingerprint(base, "labels", None)
    assert after.plain()["quantization"] == "bitsandbytes, bnb_4bit_quant_type=nf4, load_in_4bit=True"
    assert digest(before) != digest(after)


def test_nothing_is_folded_into_packed_weights(tmp_path: Path) -> None:
    base = tiny_runs.fresh("tiny-llama")
    base.model.config.quantization_config = FOUR_BITS
    run = SimpleNamespace(method=parse("ella"), path=tmp_path)
    with pytest.raises(ConfigError, match="quantised weights, into which nothing can be folded"):
        exporting.merged_model(cast(Any, run), base)


def test_an_export_has_the_names_of_both_generations(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0}
    folder = saved(tmp_path, rope_parameters=rope)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "tokenizer_class": "TokenizersBackend"}))
    before, words = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    exporting.spell_both_ways(folder)
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_theta"] == 500_000.0
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert written["rope_parameters"] == rope
    assert AutoConfig.from_pretrained(folder).rope_parameters == before.rope_parameters
    assert "PreTrainedTokenizerFast" in (folder / "tokenizer_config.json").read_text()
    assert AutoTokenizer.from_pretrained(folder)("good film")["input_ids"] == words("good film")["input_ids"]
