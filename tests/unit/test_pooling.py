"""What an encoder's head reads: the mean of a text's tokens, its first one, or what the checkpoint makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from everlora import load
from everlora.core.errors import ModelError
from everlora.models.families.pooled import PooledClassifier
from oracle import models

IDS = torch.tensor([[1, 20, 30, 40, 2], [1, 25, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def declare(folder: Path, **switches: bool) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **switches}))


def by_hand(hidden: torch.Tensor, how: str) -> torch.Tensor:
    rows = [row[real.bool()] for row, real in zip(hidden, MASK, strict=True)]
    return torch.stack([row.mean(0) if how == "mean" else row[0] for row in rows])


@pytest.mark.parametrize("how", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2", "modernbert"])
@torch.no_grad()
def test_logits_are_those_of_pooled_hidden_states_of_the_stock_body(kind: str, how: str, tmp_path: Path) -> None:
    folder = str(models.build("encoder", kind, tmp_path))
    base = load(folder, dtype="float32", device="cpu", labels=["a", "b", "c"], pooling=how)  # type: ignore[arg-type]
    stock = AutoModel.from_pretrained(folder).eval()
    pooled = by_hand(stock(input_ids=IDS, attention_mask=MASK).last_hidden_state, how)
    head = base.model.get_submodule(str(base.family.head))
    found = base.model(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found, pooled @ head.weight.T + head.bias, rtol=1e-5, atol=1e-6)
    assert found.std() > 1e-3
    assert list(base.fresh) == []


def test_a_checkpoint_says_how_it_was_trained(tmp_path: Path) -> None:
    """Its own word first; then its own head, if that is complete; else the mean."""

    def pooling(folder: Path) -> str:
        return str(load(str(folder), device="cpu").family.pooling)  # type: ignore[attr-defined]

    own = models.build("encoder", "roberta", tmp_path / "own")
    assert pooling(own) == "mean"  # a body alone
    declare(own, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    assert pooling(own) == "cls"
    (own / "1_Pooling" / "config.json").write_text("{")
    assert pooling(own) == "mean"

    body = load(str(own), device="cpu", dtype="float32", pooling="head")
    body.model.save_pretrained(tmp_path / "whole")
    body.family.processor.save_pretrained(str(tmp_path / "whole"))
    assert pooling(tmp_path / "whole") == "head"
    declare(tmp_path / "whole", pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    assert pooling(tmp_path / "whole") == "mean"
    assert load(str(tmp_path / "whole"), pooling="head", device="cpu").family.pooling == "head"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("on", "said"), [(["max_tokens"], "max_tokens"), (["mean_tokens", "lasttoken"], "mean_tokens and lasttoken")]
)
def test_a_checkpoint_that_pools_as_nothing_here_does_is_named(
    on: list[str], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = models.build("encoder", "roberta", tmp_path / "own")
    declare(folder, **{f"pooling_mode_{one}": True for one in on}, pooling_mode_cls_token=False)
    assert load(str(folder), device="cpu").family.pooling == "mean"  # type: ignore[attr-defined]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "everlora"]
    assert line == (
        f"{folder}: 1_Pooling/config.json pools by {said}, which is not known here; --pooling says how "
        f"(mean, cls, head)"
    )
    caplog.clear()
    assert load(str(folder), device="cpu", pooling="mean").family.pooling == "mean"  # type: ignore[attr-defined]
    assert not [record for record in caplog.records if record.name == "everlora"]


@pytest.mark.parametrize(
    ("text", "pooling", "warned"),
    [
        ("\ufeff" + json.dumps({"pooling_mode_cls_token": True}), "cls", False),
        (json.dumps({"pooling_mode_cls_token": 1, "pooling_mode_mean_tokens": 0}), "cls", False),
        (json.dumps({"pooling_mode": "cls", "embedding_dimension": 32}), "cls", False),
        (json.dumps({"pooling_mode": "max"}), "mean", True),
        ("", "mean", True),
        ('{"pooling_mode_cls_token": tru', "mean", True),
        (json.dumps({"pooling_mode_cls_token": "false"}), "mean", True),
        ("[" * 100_000, "mean", True),
        (json.dumps({"word_embedding_dimension": 32}), "mean", False),
    ],
    ids=["mark", "numbers", "one word", "unknown word", "empty", "half", "text", "deep", "no switch"],
)
def test_a_file_of_switches_is_read_or_said_to_be_unreadable(
    text: str, pooling: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = models.build("encoder", "roberta", tmp_path / "own")
    declare(folder)
    (folder / "1_Pooling/config.json").write_text(text, encoding="utf-8")
    assert load(str(folder), device="cpu").family.pooling == pooling  # type: ignore[attr-defined]
    found = [record.getMessage() for record in caplog.records if record.name == "everlora"]
    assert [line.endswith("--pooling says how (mean, cls, head)") for line in found] == [True] * warned


@pytest.mark.parametrize("written", ["bogus", 3, ["mean"]])
def test_a_written_pooling_that_nobody_knows_is_refused(written: Any, tmp_path: Path) -> None:
    folder = models.build("encoder", "bert", tmp_path / "own")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "everlora_pooling": written}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"everlora_pooling in its config.json is .*, and texts are pooled by mean"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
@torch.no_grad()
def test_a_written_model_answers_as_before_and_lends_its_body_to_stock_transformers(kind: str, tmp_path: Path) -> None:
    folder = str(models.build("encoder", kind, tmp_path))
    model = load(folder, dtype="float32", device="cpu", pooling="cls").model
    head = model.get_submodule(str(load(folder, pooling="cls").family.head))
    head.weight.normal_(generator=torch.Generator().manual_seed(1))
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    model.save_pretrained(tmp_path / "written")
    load(folder).family.processor.save_pretrained(str(tmp_path / "written"))

    again = PooledClassifier.from_pretrained(str(tmp_path / "written")).eval()
    assert torch.equal(again(input_ids=IDS, attention_mask=MASK).logits, expected)
    ours = load(str(tmp_path / "written"), dtype="float32", device="cpu")
    assert ours.family.pooling == "cls"  # type: ignore[attr-defined]
    assert torch.equal(ours.model(input_ids=IDS, attention_mask=MASK).logits, expected)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "written").eval()
    first = stock.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state[:, 0]
    assert torch.equal(stock.get_submodule(str(ours.family.head))(first), expected)
    body = AutoModel.from_pretrained(tmp_path / "written").eval()
    assert torch.equal(body(input_ids=IDS, attention_mask=MASK).last_hidden_state[:, 0], first)


def test_activations_can_be_computed_again_instead_of_held() -> None:
    model = load("tiny-bert", pooling="mean", device="cpu").model
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing


def test_what_has_no_tokens_to_pool_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^'tiny-llama' is of the family decoder, and only encoders pool"):
        load("tiny-llama", pooling="mean")
