"""LwF on whole runs: what is compared, over which answers, and that nothing else changes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import tiny_runs
from everlora import parse
from everlora.methods.inclora import inclora
from everlora.parts.distil import Distil, distillation
from everlora.training.trainer import ClTrainer
from plan import crossed

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_beta_zero_is_seqlora_and_the_first_task_always(model, recorded, tmp_path):
    plain, off, on = (
        tiny_runs.train_sequence(model, m, tmp_path / str(k), **DIAGONAL)
        for k, m in enumerate(("seqlora", "lwf(beta=0)", "lwf(beta=4)"))
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(plain), tiny_runs.adapter(off)) == 0
    assert tiny_runs.largest_difference(tiny_runs.adapter(plain), tiny_runs.adapter(on)) > 0
    first = [learner.folder.stages()[0].path / "adapter_model.safetensors" for learner in (plain, on)]
    assert first[0].read_bytes() == first[1].read_bytes()


def test_beta_zero_costs_nothing(tmp_path, monkeypatch):
    def refuse(params):
        raise AssertionError("a former model is kept for nothing")

    monkeypatch.setattr("everlora.training.task_trainer.Teacher", refuse)
    tiny_runs.train_sequence("tiny-llama", "lwf(beta=0)", tmp_path / "off")
    with pytest.raises(AssertionError, match="for nothing"):
        tiny_runs.train_sequence("tiny-llama", "lwf", tmp_path / "on")


@crossed(model=tiny_runs.MODELS, dropout=[0.0, 0.3])
def test_the_loss_is_task_plus_distillation_from_a_copy_of_the_former_model(model, dropout, tmp_path, monkeypatch):
    """Every loss of the second task against one made from a deep copy of the model as it was when the task began.

    The logits that the model computes are noted on their way; what is compared are the labels known before the task,
    all tokens where answers are text.
    """
    method, seen = "lwf(beta=0.7,tau=3)", []
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": dropout}
    learner = tiny_runs.begin(model, method, tmp_path / "run", lora=lora, train={"logging_steps": 100})
    learner.follow(tiny_runs.stream(model)[:1])
    former: list[torch.nn.Module] = []
    own = ClTrainer.compute_loss

    def compute(self, inside, inputs, return_outputs=False, num_items_in_batch=None):
        if not former:
            former.append(copy.deepcopy(inside).eval())
        noted, family = [], self.family
        before, was = copy.deepcopy(dict(inputs)), family.logits_with_known

        def note(m, batch):
            noted.append(was(m, batch))
            return noted[-1]

        family.logits_with_known = note
        try:
            loss = own(self, inside, inputs, num_items_in_batch=num_items_in_batch)
        finally:
            del family.logits_with_known
        new, targets, known = noted[0]
        with torch.no_grad():
            old = was(former[0], before)[2]
        assert old.shape[-1] == (2 if family.head else new.shape[-1])  # the first task had yes and no
        assert old.isfinite().all()
        expected = cross_entropy(new, targets) + 0.7 * distillation(known, old, 3.0).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        seen.append(float((expected - cross_entropy(new, targets)).detach()))
        return loss

    monkeypatch.setattr(ClTrainer, "compute_loss", compute)
    learner.follow(tiny_runs.stream(model))
    assert len(seen) == 3
    if not dropout:
        assert abs(seen[0]) < 1e-6, "nothing has changed yet"
    assert seen[-1] > 1e-7


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_former_rows_of_the_head_are_held_by_the_comparison(model, tmp_path):
    """The former labels' rows get a gradient from it, and the new labels' rows none but the task's."""
    heads = {}
    for beta in (0.0, 5.0):
        learner = tiny_runs.train_sequence(model, f"lwf(beta={beta})", tmp_path / str(beta), **DIAGONAL)
        heads[beta] = learner.base.model.classifier.weight.detach().clone()
    assert not torch.equal(heads[0.0][:2], heads[5.0][:2])


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_a_head_of_its_own_has_nothing_to_compare(model, tmp_path):
    """per-task starts a new head each time, so no label was known before."""
    own = parse("per-task")
    held = replace(own, outputs=(Distil(beta=5.0),))
    apart = tiny_runs.largest_difference(
        *(
            tiny_runs.adapter(tiny_runs.train_sequence(model, m, tmp_path / str(k), **DIAGONAL))
            for k, m in enumerate((own, held))
        )
    )
    assert apart == 0


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_fresh_adapters_are_held_too(model, tmp_path):
    """On another host: a fresh adapter adds nothing yet, so the former model is this one with it as drawn."""
    plain = inclora()
    held = replace(plain, outputs=(Distil(beta=5.0),))
    apart = tiny_runs.largest_difference(
        *(
            tiny_runs.adapter(tiny_runs.train_sequence(model, m, tmp_path / str(k), **DIAGONAL))
            for k, m in enumerate((plain, held))
        )
    )
    assert apart > 0


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_one_piece_or_eight(model, tmp_path):
    sgd = {"optim": "sgd", "learning_rate": 0.5}
    whole, pieces = (
        tiny_runs.train_sequence(model, "lwf(beta=2)", tmp_path / str(rows),
                    train={**sgd, "per_device_train_batch_size": rows, "gradient_accumulation_steps": 8 // rows})
        for rows in (8, 1)
    )  # fmt: skip
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(pieces)) < 1e-5
