"""What we rely on in transformers' Trainer; an upgrade that changes it fails here, in one readable place."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainingArguments

import tiny_runs
from everlora.models.families.base import IGNORE
from everlora.runtime import precision
from everlora.training.trainer import ClTrainer, Rows


def arguments(folder, **changes):
    settings = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.0,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": True,
    }
    return TrainingArguments(**{**settings, **changes})


class Events(TrainerCallback):
    def __init__(self, log):
        self.log = log

    def on_step_begin(self, *args, **kwargs):
        self.log.append("begin")

    def on_pre_optimizer_step(self, *args, **kwargs):
        self.log.append("pre")

    def on_optimizer_step(self, *args, **kwargs):
        self.log.append("post")

    def on_step_end(self, *args, **kwargs):
        self.log.append("end")


def trainer_for(model, folder, kind=Trainer, **options):
    """A stock Trainer on a bare tiny model whose last parameters train."""
    loaded = tiny_runs.fresh(model)
    task = tiny_runs.stream(model)[0]
    loaded.family.prepare(loaded.model, [task], torch.Generator().manual_seed(0))
    loaded.model.requires_grad_(True)
    changes = options.pop("changes", {})
    return loaded, kind(
        model=loaded.model,
        args=arguments(folder, **changes),
        train_dataset=Rows(loaded.family, [task]),
        data_collator=options.pop("data_collator", loaded.family.collate),
        **options,
    )


def test_the_order_of_events(tmp_path, monkeypatch):
    log = []

    class Noting(Trainer):
        def training_step(self, *args, **kwargs):
            out = super().training_step(*args, **kwargs)
            log.append("backward")
            return out

        def create_optimizer(self, *args, **kwargs):
            optimizer = super().create_optimizer(*args, **kwargs)
            optimizer.register_step_pre_hook(lambda *_: log.append("step"))
            return optimizer

    _, trainer = trainer_for("tiny-llama", tmp_path, Noting, callbacks=[Events(log)])
    trainer.train()
    assert log == ["begin", "backward", "backward", "pre", "step", "post", "end"] * 2


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_a_loss_function_makes_the_trainer_count_items(model, tmp_path):
    """Over all micro-batches of a step, for families whose forward knows nothing of it too."""
    counted, given = [], []

    def loss(outputs, labels, num_items_in_batch=None):
        given.append(int(num_items_in_batch))
        logits = outputs["logits"]
        return (logits * 0).sum()

    loaded, trainer = trainer_for(model, tmp_path, compute_loss_func=loss)
    collate = loaded.family.collate

    def counting(rows):
        batch = collate(rows)
        counted.append(int((batch["labels"] != IGNORE).sum()))
        return {k: v for k, v in batch.items() if k != "allowed"}

    trainer.data_collator = counting
    trainer.train()
    pairs = [sum(counted[k : k + 2]) for k in range(0, 4, 2)]
    assert given[:4] == [n for n in pairs for _ in range(2)]


def test_aligned_targets_are_counted_whole(tmp_path):
    """`shift_labels` are counted as they stand; bare `labels` of a decoder lose their first column."""
    given = []

    def loss(outputs, labels, num_items_in_batch=None):
        given.append(int(num_items_in_batch))
        return (outputs["logits"] * 0).sum()

    def full(rows, aligned):
        ids = torch.full((2, 5), 7)
        batch = {"input_ids": ids, "labels": ids}
        return {**batch, "shift_labels": ids} if aligned else batch

    for aligned in (True, False):
        _, trainer = trainer_for(
            "tiny-llama",
            tmp_path,
            compute_loss_func=loss,
            data_collator=lambda rows, aligned=aligned: full(rows, aligned),
        )
        trainer.train()
    assert given == [20] * 4 + [16] * 4


@pytest.mark.parametrize(("scaled", "share"), [(True, 1.0), (False, 0.5)])
def test_the_class_attribute_decides_who_divides(scaled, share, tmp_path):
    """With `loss_is_scaled_for_ga` the Trainer leaves the loss alone; without, it divides by the accumulation."""
    seen = []

    class Own(Trainer):
        loss_is_scaled_for_ga = scaled

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return sum(p.sum() for p in model.parameters() if p.requires_grad)

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            seen.append(float(next(p for p in model.parameters() if p.requires_grad).grad.flatten()[0]))

    _, trainer = trainer_for("tiny-llama", tmp_path, Own, callbacks=[Look()])
    trainer.train()
    assert seen == [2 * share] * 2
    assert ClTrainer.loss_is_scaled_for_ga is True


def test_our_loss_is_the_mean_over_the_global_batch(tmp_path):
    """The gradient that ClTrainer accumulates is that of the plain mean over all targets of the step."""
    from everlora.training.chain import Chain

    seen, batches = [], []

    class Look(Chain):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            seen.append([p.grad.clone() for p in self.params])

    loaded = tiny_runs.fresh("tiny-t5")
    task = tiny_runs.stream("tiny-t5")[0]
    loaded.model.lm_head.weight.requires_grad_(True)
    collate = loaded.family.collate
    loaded.family.collate = lambda rows: batches.append(rows) or collate(rows)
    trainer = ClTrainer(
        loaded.family,
        Look(params=[loaded.model.lm_head.weight], task="x"),
        model=loaded.model,
        args=arguments(tmp_path, max_steps=1, label_names=["labels"]),
        train_dataset=Rows(loaded.family, [task]),
    )
    trainer.train()
    batch = collate([row for rows in batches[:2] for row in rows])
    logits, targets = loaded.family.logits(loaded.model, batch)
    cross_entropy(logits.double(), targets).backward()
    torch.testing.assert_close(seen[0][0], loaded.model.lm_head.weight.grad, rtol=1e-4, atol=1e-7)


def test_bf16_on_a_cpu_attends_in_fp32(monkeypatch):
    kinds = []
    real = precision.sdpa_attention_forward
    monkeypatch.setattr(
        precision, "sdpa_attention_forward", lambda m, q, *a, **k: kinds.append(q.dtype) or real(m, q, *a, **k)
    )
    for model in ("tiny-llama", "tiny-bert", "tiny-vit"):
        loaded = tiny_runs.fresh(model, "bfloat16")
        assert loaded.model.config._attn_implementation == precision.FP32_ATTENTION
        task = tiny_runs.stream(model)[0]
        loaded.family.prepare(loaded.model, [task], torch.Generator())
        before = len(kinds)
        tiny_runs.outputs(loaded.model, loaded.family, task)
        assert len(kinds) == before + 2, model
    assert set(kinds) == {torch.float32}
    assert tiny_runs.base("tiny-llama").model.config._attn_implementation != precision.FP32_ATTENTION
