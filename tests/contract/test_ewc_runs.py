"""EWC on whole runs: its evidence, and what it leaves alone."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.functional import cross_entropy

import tiny_runs
from everlora import parse
from everlora.runtime.seeds import seed_for
from everlora.training.evidence import observe
from everlora.training.stages import stages
from plan import crossed

HOSTS = ("ewc(samples=5)", "ewc(on=all,samples=5)")


@crossed(model=tiny_runs.MODELS, method=HOSTS)
def test_the_evidence_is_the_mean_of_squares_of_single_rows(model, method, tmp_path):
    """Against autograd, row by row; nothing is left in gradients or in modes; and it is what is remembered."""
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.3}
    learner = tiny_runs.train_sequence(model, method, tmp_path / "run", tiny_runs.stream(model)[:1], lora=lora)
    part, (stage,) = learner.method.penalties[0], stages(learner.method, tiny_runs.stream(model)[:1])
    task, family = stage.tasks[0], learner.base.family
    opened = learner.backend.attach(seed=0, start=learner.newest, tasks=stage.tasks).train()
    next(opened.children()).train(False)  # modes differ among modules
    for module in opened.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train().p = 0.3
    modes = [m.training for m in opened.modules()]
    live = learner.backend.trainable()
    found = observe(part, stage, opened, family, learner.backend, learner.spec.seed)
    assert [m.training for m in opened.modules()] == modes
    assert all(p.grad is None for p in opened.parameters())
    rows = random.Random(seed_for(learner.spec.seed, 1, part.name)).sample(list(task.train), 5)
    sums = {n: {k: torch.zeros_like(t, dtype=torch.float64) for k, t in s.tensors.items()} for n, s in live.items()}
    opened.eval()
    for row in rows:
        opened.zero_grad()
        logits, targets = family.logits(opened, family.collate([family.features(row, task)]))
        cross_entropy(logits, targets, reduction="sum").backward()
        for name, site in live.items():
            for key, t in site.tensors.items():
                sums[name][key] += 0 if t.grad is None else t.grad.double().square() / 5
    remembered, something = learner.memory[part.name], 0.0
    for name, site in sums.items():
        for key, expected in site.items():
            torch.testing.assert_close(found[name].fisher[key].double(), expected, rtol=1e-4, atol=1e-12)
            torch.testing.assert_close(remembered[name][f"fisher.{key}"].double(), expected, rtol=1e-3, atol=1e-10)
            something += float(expected.sum())
    assert something > 0
    together = family.collate([family.features(row, task) for row in rows])
    opened.zero_grad()
    logits, targets = family.logits(opened, together)
    (cross_entropy(logits, targets, reduction="sum") / 5).backward()
    batch = sum(float(t.grad.square().sum()) for s in live.values() for t in s.tensors.values() if t.grad is not None)
    assert batch < 0.99 * something, "a batch's mean gradient, squared, is less"


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_strength_zero_is_seqft_bit_for_bit(model, tmp_path):
    seqft, off, on = (
        tiny_runs.adapter(tiny_runs.train_sequence(model, method, tmp_path / str(k)))
        for k, method in enumerate(("seqft", "ewc(on=all,lam=0,samples=4)", "ewc(on=all,samples=4)"))
    )
    assert tiny_runs.largest_difference(seqft, off) == 0
    assert tiny_runs.largest_difference(seqft, on) > 0


@pytest.mark.parametrize("form", ["online", "per-task"])
@pytest.mark.parametrize("on", ["lora", "all"])
def test_a_strong_pull_holds_and_a_resumed_run_is_the_same(form, on, tmp_path):
    """Three tasks, so that what is remembered goes through a folder and into another memory."""
    tasks = tiny_runs.stream("tiny-llama", 3)
    method = f"ewc(form={form},on={on},samples=6,lam=30)"
    whole = tiny_runs.train_sequence("tiny-llama", method, tmp_path / "whole", tasks)
    one = tiny_runs.train_sequence("tiny-llama", method, tmp_path / "run", tasks[:2])
    again = tiny_runs.begin("tiny-llama", method, tmp_path / "run", resume=True)
    again.follow(tasks)
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(again)) == 0
    assert whole.memory["quadratic"].keys() == again.memory["quadratic"].keys()
    for name, state in whole.memory["quadratic"].items():
        assert all(torch.equal(tensor, again.memory["quadratic"][name][key]) for key, tensor in state.items())
        assert len(state) == len(whole.newest[name].tensors) * (1 if form == "online" else 2)
        before = one.memory["quadratic"][name]
        for key in (key for key in state if key.startswith("fisher.")):
            assert (state[key] >= before[key]).all(), "F adds up"
            assert before[key].any()
    extra = whole.storage().memory_bytes / (4 * whole.storage().stored_elements)
    assert extra == (2 if form == "online" else 3)


def test_the_pull_shortens_the_way_where_it_matters(tmp_path):
    """Fisher-weighted distance from where the first task ended: less with EWC than without."""
    one = tiny_runs.train_sequence(
        "tiny-llama", "ewc(samples=24)", tmp_path / "one", tiny_runs.stream("tiny-llama")[:1]
    )
    F, start = one.memory["quadratic"], one.newest

    def far(learner) -> float:
        return sum(
            float((F[n][f"fisher.{k}"] * (t - start[n].tensors[k]).square()).sum())
            for n, site in learner.newest.items()
            for k, t in site.tensors.items()
        )

    free, held = (
        far(tiny_runs.train_sequence("tiny-llama", method, tmp_path / method, train={"max_steps": 12}, evaluation={}))
        for method in ("seqlora", "ewc(samples=24)")
    )
    assert parse("ewc").penalties
    assert held < 0.7 * free
