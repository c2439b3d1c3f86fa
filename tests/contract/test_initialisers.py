"""Where a fresh adapter starts: LB-CL's blend, copied layers, and the gradients that the blend is made of."""

from __future__ import annotations

import random
from contextlib import contextmanager

import pytest
import torch

import tiny_runs
from everlora.adapters.lora import LoraBackend
from everlora.core.updates import LowRank
from everlora.runtime.seeds import seed_for
from everlora.training.evidence import weight_gradients
from everlora.training.trainer import token_mean
from plan import crossed
from tiny_runs import MODELS

FAR = {"evaluation": {"schedule": "diagonal"}, "train": {"learning_rate": 5e-2}}
"""So far that what was learned shows in every family's outputs."""
TOP = {
    "tiny-llama": "model.layers.1.",
    "tiny-t5": "decoder.block.1.",
    "tiny-bert": "bert.encoder.layer.1.",
    "tiny-vit": "vit.layers.1.",
}
"""The last block; of T5 that of the decoder."""


def begun(model, method, folder, *, task="second", look=lambda learner: None, **settings):
    """A run, and its adapter when ``task`` begins; ``look`` sees the run at that moment."""
    seen = {}

    def at_start(name):
        if name == task:
            seen.update(learner.backend.extract())
            look(learner)

    tasks = tiny_runs.stream(model, 2 if task == "second" else 3)
    learner = tiny_runs.begin(
        model, method, folder, progress=tiny_runs.Watch(learning=at_start), **{**FAR, **settings}
    )
    learner.follow(tasks)
    return learner, seen


def equal(a, b):
    return all(torch.equal(tensor, b.tensors[key]) for key, tensor in a.tensors.items())


def chosen(learner, task, number, samples):
    """The rows that are looked at, drawn as the engine draws them."""
    draw = random.Random(seed_for(learner.spec.seed, number, "sensitivity_blend"))
    return draw.sample([(row, task) for row in task.train], samples)


@contextmanager
def weights(layers, values):
    """While active, the layers compute with these weights, which may have a history."""
    held = {name: layer._parameters.pop("weight") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.weight = values[name]
        yield
    finally:
        for name, layer in layers.items():
            del layer.weight
            layer._parameters["weight"] = held[name]


def by_autograd(model, family, layers, rows, make, leaves):
    """∂L/∂leaves of the mean loss on ``rows``, the layers' weights being made of the leaves."""
    model.eval()
    with weights(layers, make()):
        logits, targets = family.logits(model, family.collate([family.features(*row) for row in rows]))
        return torch.autograd.grad(token_mean(logits, targets, targets.numel()), leaves)


def outputs_at_start(model, learner):
    """Outputs of the model as it starts, of what is below the adapter, and of ``below`` plus ΔW_1 once more."""
    task, family, peft = tiny_runs.stream(model)[0], learner.base.family, learner.backend.model
    seen = {"start": tiny_runs.outputs(peft, family, task)}
    first = learner.past.deltas[0]
    with torch.no_grad(), peft.disable_adapter():
        seen["below"] = tiny_runs.outputs(peft, family, task)
        with weights(
            learner.backend.base_layers(),
            {n: m.weight + first[n].dense() for n, m in learner.backend.base_layers().items()},
        ):
            seen["twice"] = tiny_runs.outputs(peft, family, task)
    return seen


@pytest.mark.parametrize(("method", "model"), [*(("lb-cl", model) for model in MODELS), ("l-cl", "tiny-llama")])
def test_with_sigma_the_second_task_starts_at_twice_the_first_update(model, method, tmp_path):
    method = f"{method}(sigma=with)"
    seen, pristine = {}, dict(tiny_runs.base(model).model.named_parameters())

    def look(learner):
        seen.update(outputs_at_start(model, learner))
        for name, layer in learner.backend.base_layers().items():
            whole = layer.weight + learner.backend.extract()[name].dense()
            twice = pristine[f"{name}.weight"] + 2 * learner.past.deltas[0][name].dense()
            torch.testing.assert_close(whole, twice, rtol=0, atol=1e-6)

    learner, started = begun(model, method, tmp_path / "run", look=look)
    assert all(equal(site, learner.past.deltas[0][name]) for name, site in started.items())
    torch.testing.assert_close(seen["start"], seen["twice"], rtol=1e-5, atol=2e-6)
    assert not torch.allclose(seen["start"], seen["below"], atol=1e-4), "nothing was learned"


@pytest.mark.parametrize(("model", "past"), [*((model, "fold") for model in MODELS), ("tiny-t5", "factors")])
def test_a_bf16_base_starts_so_too(model, past, tmp_path):
    learner, started = begun(model, "lb-cl(sigma=with)", tmp_path / "run", dtype="bfloat16", past=past)
    assert all(equal(site, learner.past.deltas[0][name]) for name, site in started.items())


@pytest.mark.parametrize(("method", "model"), [*(("lb-cl", model) for model in MODELS), ("l-cl", "tiny-bert")])
def test_without_sigma_the_second_task_starts_where_the_first_ended(model, method, tmp_path):
    seen = {}
    learner, started = begun(
        model,
        f"{method}(sigma=without)",
        tmp_path / "run",
        look=lambda learner: seen.update(outputs_at_start(model, learner)),
    )
    assert torch.equal(seen["start"], seen["below"])
    for name, site in started.items():
        first = learner.past.deltas[0][name]
        assert torch.equal(site.A, first.A)
        assert torch.equal(site.B, first.B)
        assert (site.sigma == 0).all()
        assert (first.sigma != 0).any()


@crossed(model=MODELS, method=["lb-cl(sigma=with,top_layers=1)", "copy-layers(top_layers=1)"])
def test_one_top_layer_is_the_last_block_alone(model, method, tmp_path):
    """Elsewhere an adapter starts as PEFT draws it."""
    learner, started = begun(model, method, tmp_path / "run")
    plain = LoraBackend(tiny_runs.fresh(model), {"r": 4, "lora_alpha": 8}, adapter=learner.method.adapter)
    plain.attach(seed=seed_for(learner.spec.seed, 2, "adapter"))
    drawn = plain.extract()
    top = {name for name in started if name.startswith(TOP[model])}
    assert 0 < len(top) < len(started)
    for name, site in started.items():
        assert equal(site, drawn[name]) == (name not in top), name
        assert equal(site, learner.past.deltas[0][name]) == (name in top), name


@pytest.mark.parametrize("model", MODELS)
def test_copied_layers_are_the_newest_tasks_bit_for_bit(model, tmp_path):
    learner, started = begun(model, "copy-layers", tmp_path / "run", task="third")
    assert all(equal(site, learner.past.deltas[1][name]) for name, site in started.items())
    assert not any(equal(site, learner.past.deltas[0][name]) for name, site in started.items())


@crossed(model=MODELS, per_sample=[False, True])
def test_the_third_start_is_the_blend_that_autograd_weighs(model, per_sample, tmp_path):
    """Scores from gradients of every old triplet by itself, all of them active: one backward pass gives as much."""
    expected, task = {}, tiny_runs.stream(model, 3)[2]

    def look(learner):
        layers = learner.backend.base_layers()
        rows = chosen(learner, task, 3, 8)
        batches = [[row] for row in rows] if per_sample else [rows]
        pristine = {name: learner.backend._folded[name].original for name in layers}
        past = {
            name: [delta[name].map(lambda t: t.clone().requires_grad_()) for delta in learner.past] for name in layers
        }
        leaves = [t for updates in past.values() for update in updates for t in update.tensors.values()]

        def make():
            return {n: pristine[n] + sum(u.dense() for u in updates) for n, updates in past.items()}

        scores = torch.zeros(len(past), 2, 4)
        with learner.backend.model.disable_adapter():
            for batch in batches:
                found = by_autograd(learner.backend.model, learner.base.family, layers, batch, make, leaves)
                each = [(leaf * g).abs() for leaf, g in zip(leaves, found, strict=True)]
                for k, (V, U, sigma) in enumerate(zip(each[::3], each[1::3], each[2::3], strict=True)):
                    scores[k // 2, k % 2] += sigma.squeeze(-1) + U.mean(0) + V.mean(1)
        for score, (name, updates) in zip(scores, past.items(), strict=True):
            alpha = score / score.sum(0)
            expected[name] = LowRank(
                *(sum(a * getattr(u, key) for a, u in zip(shape, updates, strict=True))
                  for key, shape in (("A", alpha[..., None]), ("B", alpha))),
                sigma=sum(a * u.sigma for a, u in zip(alpha[..., None], updates, strict=True)),
            ).map(torch.Tensor.detach)  # fmt: skip

    method = f"l-cl(sigma=with,per_sample={per_sample})"
    _, started = begun(model, method, tmp_path / "run", task="third", look=look)
    for name, site in started.items():
        for key, tensor in site.tensors.items():
            torch.testing.assert_close(tensor, expected[name].tensors[key], rtol=1e-3, atol=1e-5)


@crossed(model=MODELS, past=["fold", "factors"])
def test_weight_gradients_are_autograds(model, past, tmp_path):
    """Of the mean loss and row by row, at the weights of the first task; nothing but figures is left behind."""
    task, checked = tiny_runs.stream(model)[1], []

    def look(learner):
        peft, family, layers = learner.backend.model.train(), learner.base.family, learner.backend.base_layers()
        rows, before, logits = (
            [(row, task) for row in task.train[:5]],
            trace(peft),
            tiny_runs.outputs(peft, family, task),
        )
        for per_sample in (False, True):
            found = weight_gradients(peft, family, layers, rows, per_sample=per_sample)
            assert trace(peft) == before
            batches = [[row] for row in rows] if per_sample else [rows]
            values = {n: layer.weight.detach().clone().requires_grad_() for n, layer in layers.items()}
            leaves = list(values.values())
            each = [by_autograd(peft, family, layers, batch, values.copy, leaves) for batch in batches]
            peft.train()
            for name, *gradients in zip(values, *each, strict=True):
                expected = torch.stack(gradients)
                assert found[name].shape == expected.shape
                assert float((found[name] - expected).norm() / expected.norm()) < 1e-5, name
                checked.append(name)
        assert torch.equal(tiny_runs.outputs(peft, family, task), logits)

    learner, started = begun(model, "inclora", tmp_path / "run", past=past, look=look)
    assert set(checked) == set(started)
    assert all(below.fold == (past == "fold") for below in learner.backend._folded.values())


def trace(model):
    """What looking must not change: mode and hooks of every module, gradients, and what is trainable."""
    modules = {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    return modules, {n: (p.requires_grad, p.grad is None) for n, p in model.named_parameters()}


@pytest.mark.parametrize("model", MODELS)
def test_a_look_at_the_gradients_leaves_no_trace(model):
    """Not even in the mode of single modules, which differs as PEFT opens an adapter on a model in eval mode."""
    loaded, task = tiny_runs.fresh(model), tiny_runs.stream(model)[0]
    loaded.family.prepare(loaded.model, [task], torch.Generator().manual_seed(0))
    backend = LoraBackend(loaded, {"r": 4, "lora_alpha": 8})
    peft = backend.attach(seed=0)
    before = trace(peft)
    weight_gradients(peft, loaded.family, backend.base_layers(), [(task.train[0], task)], per_sample=False)
    assert trace(peft) == before


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_the_blend_is_one_whether_the_past_is_folded_or_beside(model, tmp_path):
    (_, folded), (learner, beside) = (
        begun(model, "lb-cl", tmp_path / past, task="third", past=past) for past in ("fold", "factors")
    )
    assert all(b.factors is not None and not b.fold for b in learner.backend._folded.values())
    for name, site in folded.items():
        for key, tensor in site.tensors.items():
            torch.testing.assert_close(beside[name].tensors[key], tensor, rtol=1e-3, atol=1e-5)
