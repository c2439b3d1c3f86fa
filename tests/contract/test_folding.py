"""Where the past stands. Folded in fp32 it is all there, in bf16 it would be lost; folded or beside, it is one."""

from __future__ import annotations

import pytest
import torch

import tiny_runs
from everlora.adapters.lora import LoraBackend
from everlora.core.errors import ModelError
from tiny_runs import MODELS


@pytest.mark.parametrize("model", MODELS)
def test_folded_and_beside_are_one(model, recorded, tmp_path):
    """Trained and answered with the past as a frozen term: the same outputs."""
    beside = tiny_runs.train_sequence(
        model, "ella", tmp_path / "run", past="factors", evaluation={"schedule": "diagonal"}
    )
    ready, folded = beside.inference_model(), recorded("ella", model)
    assert all(b.factors is not None and not b.fold for b in beside.backend._folded.values())
    for task in tiny_runs.stream(model):
        outputs = tiny_runs.outputs(ready, beside.base.family, task)
        torch.testing.assert_close(outputs, folded.final[task.name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_a_bf16_base_keeps_what_was_learned(model, tmp_path):
    """Small updates on bf16 weights: the folded matrix minus the pristine one is ΔW; rounded to bf16 it is not."""
    learner = tiny_runs.train_sequence(
        model, "ella", tmp_path / "run", dtype="bfloat16", train={"learning_rate": 2e-5}
    )
    learner.inference_model()
    lost, kept = [], []
    pristine = dict(tiny_runs.base(model, "bfloat16").model.named_parameters())
    now = dict(learner.base.model.named_parameters())
    for name in learner.newest:
        before, delta = pristine[f"{name}.weight"], learner.past.total(name)
        assert before.dtype == torch.bfloat16
        assert now[f"{name}.weight"].dtype == torch.float32
        kept.append(float(((now[f"{name}.weight"] - before.float()) - delta).norm() / delta.norm()))
        rounded = before + delta.bfloat16()
        lost.append(float(((rounded.float() - before.float()) - delta).norm() / delta.norm()))
    assert max(kept) < 1e-3
    assert min(lost) > 0.4
    for name in (n for n in now if "classifier" not in n and n.removesuffix(".weight") not in learner.newest):
        # Biases of adapted layers are stored in fp32 with their matrices; their values are the same.
        assert torch.equal(now[name].bfloat16(), pristine[name]), name
        assert now[name].dtype == (torch.float32 if name.removesuffix(".bias") in learner.newest else torch.bfloat16)


def test_going_back_to_an_earlier_past_is_exact(recorded):
    """Fewer updates than before start again from the pristine weight: no subtraction, no drift."""
    from everlora.core.history import UpdateHistory

    record, loaded = recorded("ella", "tiny-llama"), tiny_runs.fresh("tiny-llama")
    backend = LoraBackend(loaded, {"r": 4, "lora_alpha": 8}, "fold")
    backend.attach(seed=0)
    both, one = record.learner.past, UpdateHistory(record.learner.past.deltas[:1])
    weights = {}
    for key, past in (("one", one), ("both", both), ("again", one), ("none", UpdateHistory())):
        backend.set_past(past)
        weights[key] = [below.layer.weight.clone() for below in backend._folded.values()]
    assert all(map(torch.equal, weights["one"], weights["again"]))
    pristine = dict(tiny_runs.base("tiny-llama").model.named_parameters())
    assert all(torch.equal(w, pristine[f"{n}.weight"]) for n, w in zip(backend._folded, weights["none"], strict=True))


@pytest.mark.parametrize("first", [True, False])
def test_a_matrix_that_stands_in_two_places_is_not_adapted(first):
    """Folding into one of them would change the other; the message names the other, not the target itself."""
    loaded = tiny_runs.fresh("tiny-llama")
    layers = loaded.model.model.layers
    layers[1].self_attn.q_proj.weight = layers[0].self_attn.q_proj.weight
    one, other = (f"model.layers.{k}.self_attn.q_proj" for k in ((0, 1) if first else (1, 0)))
    backend = LoraBackend(loaded, {"r": 4, "lora_alpha": 8, "target_modules": [one]}, "fold")
    with pytest.raises(ModelError, match=f"target '{one}' shares its weights with '{other}', which would change"):
        backend.attach(seed=0)


def test_an_output_layer_tied_to_the_embedding_is_not_adapted(tmp_path):
    loaded = tiny_runs.fresh("tiny-llama")
    loaded.model.lm_head.weight = loaded.model.model.embed_tokens.weight
    before = loaded.model.lm_head.weight.clone()
    learner = tiny_runs.begin("tiny-llama", "ella", tmp_path, loaded=loaded, lora={"target_modules": ["lm_head"]})
    with pytest.raises(ModelError, match="'lm_head' shares its weights with 'model\\.embed_tokens'"):
        learner.follow(tiny_runs.stream("tiny-llama"))
    assert learner.backend.model is None
    assert torch.equal(loaded.model.lm_head.weight, before)
