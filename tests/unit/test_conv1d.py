"""GPT-2's `Conv1D` holds its weight transposed: what is learned on it is added, resumed and exported as elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import tiny_runs
from everlora import load
from everlora.adapters.folded import FoldedBase
from everlora.analysis.runs import Run
from everlora.core.errors import ModelError
from everlora.core.updates import LowRank
from everlora.export.model import merged_model, write_model
from oracle import models

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}
IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("past", ["fold", "factors"])
def test_the_past_is_added_as_to_a_linear_layer(past: str) -> None:
    draw = torch.Generator().manual_seed(0)
    conv, x = Conv1D(nf=5, nx=3), torch.randn(2, 4, 3, generator=draw)
    linear = nn.Linear(3, 5)
    linear.load_state_dict({"weight": conv.weight.T.clone(), "bias": conv.bias})
    deltas = [LowRank(torch.randn(2, 3, generator=draw), torch.randn(5, 2, generator=draw), 0.5) for _ in range(2)]
    before = conv(x)
    for layer in (conv, linear):
        folded = FoldedBase.of(layer, past)  # type: ignore[arg-type]
        folded.set_past(deltas)
    assert not torch.allclose(conv(x), before)
    torch.testing.assert_close(conv(x), linear(x))
    if past == "fold":
        folded = FoldedBase.of(conv, "fold")
        now = conv.weight.clone()
        folded.set_past(deltas)
        assert not torch.equal(conv.weight, now)
        folded.set_past([])
        assert torch.equal(conv.weight, now)


@pytest.mark.parametrize("method", ["inclora", "seqlora", "lb-cl"])
def test_a_run_its_resumption_and_its_export_are_one_model(method: str, tmp_path: Path) -> None:
    model, out = str(models.build("decoder", "gpt2", tmp_path)), tmp_path / "run"
    whole = tiny_runs.train_sequence(model, method, out, **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence(model, method, tmp_path / "cut", progress=tiny_runs.Cut(), **DIAGONAL)
    resumed = tiny_runs.train_sequence(model, method, tmp_path / "cut", resume=True, **DIAGONAL)
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0

    def plain() -> nn.Module:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)  # type: ignore[no-any-return]

    expected = logits(whole.inference_model())
    assert not torch.allclose(logits(plain()), expected, atol=1e-3), "nothing was learned"
    torch.testing.assert_close(logits(PeftModel.from_pretrained(plain(), out)), expected, rtol=1e-5, atol=1e-5)
    write_model(Run.read(out), load(model, dtype="float32", device="cpu"), tmp_path / "exported")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    torch.testing.assert_close(logits(stock), expected, rtol=1e-5, atol=1e-5)
    merged = merged_model(Run.read(out), load(model, dtype="float32", device="cpu"))
    assert torch.equal(logits(merged), logits(stock))


@pytest.mark.parametrize("method", ["data", "sd-lora"])
def test_a_form_of_hooks_learns_on_it_and_is_resumed(method: str, tmp_path: Path) -> None:
    model, out = str(models.build("decoder", "gpt2", tmp_path)), tmp_path / "run"
    whole = tiny_runs.train_sequence(model, method, out, **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence(model, method, tmp_path / "cut", progress=tiny_runs.Cut(), **DIAGONAL)
    resumed = tiny_runs.train_sequence(model, method, tmp_path / "cut", resume=True, **DIAGONAL)
    torch.testing.assert_close(logits(resumed.inference_model()), logits(whole.inference_model()), rtol=0, atol=0)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert not torch.allclose(logits(plain), logits(whole.inference_model()), atol=1e-3), "nothing was learned"


def test_a_form_that_cannot_read_it_says_so(tmp_path: Path) -> None:
    model = str(models.build("decoder", "gpt2", tmp_path))
    with pytest.raises(ModelError, match="is a Conv1D, which peft does not decompose"):
        tiny_runs.train_sequence(model, "osf", tmp_path / "run", **DIAGONAL)
