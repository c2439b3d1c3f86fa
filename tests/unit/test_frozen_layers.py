"""Layers below the lowest adapted one run once for each text; the others compute what the whole model does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny_runs
from everlora import load
from everlora.adapters import make_backend
from everlora.adapters.layers import in_layers
from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError, ModelError
from everlora.data.task import Task
from everlora.models.families.feature_cache import FeatureCache
from everlora.models.families.frozen import FrozenLayers
from everlora.models.families.heads import unwrap_model
from everlora.models.families.store import Store
from everlora.models.loading import Loaded
from everlora.settings.lora import read_layers


def adapted(model: str, layers: str = "top:1", pooling: str = "head") -> tuple[Loaded, Any, FrozenLayers | None]:
    """A model with adapters whose B is no longer 0, and what is below them."""
    how: Any = {"pooling": pooling} if model == "tiny-bert" else {}
    base = load(model, dtype="float32", device="cpu", **how)
    backend = make_backend(base, {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "layers": layers}, "auto", Adapter())
    task = tiny_runs.stream(model)[0]
    base.family.prepare(base.model, [task], torch.Generator().manual_seed(0))
    wrapped = backend.attach(seed=0, tasks=[task])
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    return base, wrapped, FrozenLayers.below(wrapped, backend.base_layers())


def batch_of(base: Loaded, rows: slice) -> dict[str, Tensor]:
    task = tiny_runs.stream(base.name)[0]
    return base.family.collate([base.family.features(row, task) for row in task.train[rows]])


def loss_and_gradients(base: Loaded, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits, targets = base.family.logits(model, batch)
    nn.functional.cross_entropy(logits, targets).backward()
    kept = logits.detach()
    return kept[kept.isfinite()], {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("model", "pooling"), [("tiny-bert", "head"), ("tiny-bert", "mean"), ("tiny-llama", "head")])
def test_logits_and_gradients_are_those_of_the_whole_model(model: str, pooling: str) -> None:
    base, wrapped, frozen = adapted(model, pooling=pooling)
    assert frozen is not None
    assert frozen.first == 1
    batches = [batch_of(base, slice(0, 5)), batch_of(base, slice(3, 8))]
    for module in wrapped.modules():  # the whole model has dropout below, the cut one has none
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    wrapped.train()
    whole = [loss_and_gradients(base, wrapped, batch) for batch in batches]
    base.family.frozen = frozen
    before = [(name, type(module)) for name, module in wrapped.named_modules()]
    for batch, (logits, gradients) in zip(batches, whole, strict=True):
        found, slopes = loss_and_gradients(base, wrapped, batch)
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-6)
        assert slopes.keys() == gradients.keys()
        assert any("lora_A" in name for name in slopes)
        for name, slope in slopes.items():
            torch.testing.assert_close(slope, gradients[name], rtol=1e-4, atol=1e-6)
    assert frozen.fits
    assert [(name, type(module)) for name, module in wrapped.named_modules()] == before


def test_a_text_is_computed_once_in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    base, wrapped, frozen = adapted("tiny-bert")
    assert frozen is not None
    computed: list[int] = []
    compute = FrozenLayers._compute

    def count(self: FrozenLayers, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        computed.append(len(inputs["input_ids"]))
        return compute(self, model, inputs)

    monkeypatch.setattr(FrozenLayers, "_compute", count)
    frozen.fits, base.family.frozen = True, frozen
    wrapped.train()
    for rows in (slice(0, 5), slice(3, 8), slice(0, 8)):
        base.family.logits(wrapped, batch_of(base, rows))
    assert computed == [5, 3]
    frozen.begin_task()
    base.family.logits(wrapped, batch_of(base, slice(0, 5)))
    assert computed == [5, 3, 5]
    wrapped.eval()
    for rows in (slice(0, 4), slice(0, 5), slice(0, 4)):
        base.family.logits(wrapped, batch_of(base, rows))
    assert computed == [5, 3, 5, 4, 5]  # what is answered is held by the batch


def test_what_is_answered_depends_on_nothing_that_was_held() -> None:
    """A resumed run has held other texts before; the last bit of its answers must not show it."""
    base, wrapped, frozen = adapted("tiny-bert")
    base.family.frozen = frozen
    wrapped.eval()
    with torch.no_grad():
        first = base.family.logits(wrapped, batch_of(base, slice(0, 8)))[0]
        base.family.logits(wrapped, batch_of(base, slice(0, 3)))
        again = base.family.logits(wrapped, batch_of(base, slice(0, 8)))[0]
        base.family.frozen = FrozenLayers("bert.encoder.layer", 1)
        base.family.logits(wrapped, batch_of(base, slice(0, 3)))
        fresh = base.family.logits(wrapped, batch_of(base, slice(0, 8)))[0]
    assert torch.equal(first, again)
    assert torch.equal(first, fresh)


def test_labels_are_scored_from_what_frozen_layers_made_of_the_same_prompts_and_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, wrapped, frozen = adapted("tiny-llama")
    assert frozen is not None
    task, computed, compute = tiny_runs.stream("tiny-llama")[0], list[int](), FrozenLayers._compute
    others = replace(task, labels=(*task.labels, "neither of them"))
    prompts = [base.family.prompter.prompt(row, task, room=8)[0] for row in task.test[:5]]
    wrapped.eval()

    def scores(of: Task) -> Tensor:
        return base.family.label_scores(wrapped, prompts, of, shares=True)

    def count(self: FrozenLayers, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        computed.append(len(inputs["input_ids"]))
        return compute(self, model, inputs)

    whole = [scores(task), scores(others)]
    monkeypatch.setattr(FrozenLayers, "_compute", count)
    frozen.fits, frozen.disk, base.family.frozen = True, FeatureCache(tmp_path, warnings.warn), frozen
    found = [scores(task), scores(others)]
    for one, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(scores(task), found[0])
    base.family.frozen = replace(frozen)  # which holds nothing in memory
    assert torch.equal(scores(others), found[1])
    assert len(computed) == 2  # other labels behind the same prompts are another sequence


@pytest.mark.parametrize("labels_first", [True, False])
def test_what_is_on_disk_is_found_whatever_was_computed_first(
    labels_first: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Labels pass as packed rows, by another attention than the rows of a batch."""
    base, wrapped, frozen = adapted("tiny-llama")
    assert frozen is not None
    task, computed, compute = tiny_runs.stream("tiny-llama")[0], list[int](), FrozenLayers._compute
    prompts = [base.family.prompter.prompt(row, task, room=8)[0] for row in task.test[:5]]
    wrapped.eval()

    def count(self: FrozenLayers, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        computed.append(len(inputs["input_ids"]))
        return compute(self, model, inputs)

    monkeypatch.setattr(FrozenLayers, "_compute", count)
    steps = [
        lambda: base.family.label_scores(wrapped, prompts, task, shares=True),
        lambda: base.family.logits(wrapped, batch_of(base, slice(0, 4))),
    ]
    for turn in (labels_first, not labels_first):
        base.family.frozen = replace(frozen, disk=FeatureCache(tmp_path, warnings.warn))
        with torch.no_grad():
            for step in steps if turn else steps[::-1]:
                step()
    assert len(computed) == 2
    base.family.frozen = replace(frozen, disk=FeatureCache(tmp_path, warnings.warn))
    unwrap_model(wrapped).set_attn_implementation("eager")
    with torch.no_grad():
        steps[1]()
    assert len(computed) == 3  # another attention rounds otherwise


def test_dropout_of_the_frozen_layers_is_off_and_modes_stay() -> None:
    base, wrapped, frozen = adapted("tiny-bert", pooling="mean")
    assert frozen is not None
    inner = wrapped.get_base_model()
    for layer in inner.bert.encoder.layer:
        layer.output.dropout.p = 0.5
    inner.bert.encoder.layer[1].output.dropout.p = 0.0
    inner.bert.embeddings.dropout.p = inner.bert.encoder.layer[0].attention.output.dropout.p = 0.5
    wrapped.train()
    inner.bert.encoder.layer[0].eval()
    modes = {name: module.training for name, module in wrapped.named_modules()}
    inputs = {
        key: value for key, value in batch_of(base, slice(0, 4)).items() if key in ("input_ids", "attention_mask")
    }
    frozen.run(wrapped, inputs)
    assert {name: module.training for name, module in wrapped.named_modules()} == modes
    one, two = frozen.hidden(wrapped, inputs), FrozenLayers(frozen.stack, 1).hidden(wrapped, inputs)
    assert torch.equal(one, two)


def test_the_limit_of_memory_is_held() -> None:
    base, wrapped, frozen = adapted("tiny-bert")
    assert frozen is not None
    batch = batch_of(base, slice(0, 8))
    wrapped.train()
    whole = FrozenLayers(frozen.stack, frozen.first, limit=10**9)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    free = whole.hidden(wrapped, inputs)
    small = FrozenLayers(frozen.stack, frozen.first, limit=whole.learned.size // 2)
    for _ in range(2):
        assert torch.equal(small.hidden(wrapped, inputs), free)
        assert 0 < small.learned.size <= small.limit
        assert small.learned.size == sum(states.nbytes for states in small.learned.held.values())


def test_what_was_used_longest_ago_is_dropped_first() -> None:
    store = Store(limit=8)
    store.put(b"a", torch.zeros(1))
    store.put(b"b", torch.zeros(1))
    assert store.get(b"a") is not None
    store.put(b"c", torch.zeros(1))
    assert list(store.held) == [b"a", b"c"]
    store.put(b"d", torch.zeros(9))  # larger than the limit by itself
    assert (list(store.held), store.size) == ([], 0)


class Uncuttable(nn.Module):
    """Adds to its input what only the token ids tell."""

    def __init__(self, inner: nn.Module, ids: Any) -> None:
        super().__init__()
        self.inner, self.ids = inner, ids

    def forward(self, *args: Any, **inputs: Any) -> Any:
        return self.inner(*args, **inputs) + (0 if self.ids() is None else 1)


def test_a_model_that_cannot_be_cut_runs_as_it_is() -> None:
    """One whose upper layer reads the ids, too, as position embeddings of GPT-2 are added after the words."""
    base, wrapped, frozen = adapted("tiny-bert", pooling="mean")
    assert frozen is not None
    inner, seen = wrapped.get_base_model(), []
    inner.bert.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs.get("input_ids")), with_kwargs=True
    )
    inner.bert.encoder.layer[1] = Uncuttable(inner.bert.encoder.layer[1], lambda: seen[-1])
    wrapped.eval()
    batch = batch_of(base, slice(0, 4))
    whole = base.family.logits(wrapped, batch)[0]
    base.family.frozen = frozen
    assert torch.equal(base.family.logits(wrapped, batch)[0], whole)
    assert frozen.fits is False


def test_two_stacks_are_not_cut() -> None:
    assert adapted("tiny-t5")[2] is None
    assert adapted("tiny-bert", "0-1")[2] is None  # the lowest layer is adapted


@pytest.mark.parametrize("given", ["top:0", "top:", "5-4", "upper", "-1", "1-", "top:-2"])
def test_layers_that_mean_nothing_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^layers are top:2, the two upper ones, or 4-5"):
        read_layers(given)


@pytest.mark.parametrize("given", ["top:3", "2", "1-2"])
def test_layers_that_do_not_exist_are_refused(given: str) -> None:
    model = tiny_runs.base("tiny-llama").model
    with pytest.raises(ModelError, match=r"^there are no layers .*model\.layers has 2, counted from 0"):
        in_layers(model, ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"], given)
