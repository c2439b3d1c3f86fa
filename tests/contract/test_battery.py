"""The battery that every method goes through on every model family; a new method is in it by being registered."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

import lives
from everlora import parse
from everlora.core.registry import entry
from everlora.engine import adapters
from lives import METHODS, MODELS, SEQUENTIAL, TRAINED

pytestmark = pytest.mark.parametrize("model", MODELS)


def penalised() -> list[str]:
    return [name for name in METHODS if parse(name).penalties]


def carried(life, name):
    """What answers on top of W0 at one module: the sum of the updates, or what they are merged into."""
    merge = life.method.merge
    return merge.merge(delta[name].dense() for delta in life.past) if merge else life.past.total(name)


@pytest.mark.parametrize("method", TRAINED)
def test_a_new_adapter_changes_nothing(method, model, lived):
    record, initialiser = lived(method, model), parse(method).initialiser
    fresh = parse(method).adapter.policy == "new" and initialiser is None
    for stage, seen in record.began.items():
        if fresh or stage == next(iter(record.began)):
            for task, outputs in seen["outputs"].items():
                assert torch.equal(outputs, seen["below"][task])


@pytest.mark.parametrize("method", SEQUENTIAL)
def test_a_task_starts_where_the_one_before_ended(method, model, lived):
    record = lived(method, model)
    if parse(method).initialiser:
        return  # moves the function at once where σ is transferred: tests/contract/test_initialisers.py
    start, end = record.began["second"]["outputs"].get("first"), record.ended["first"]["first"]
    rule = parse(method).consolidator.rule
    if rule == "continue":
        # A head that has grown multiplies another shape, which may round otherwise.
        torch.testing.assert_close(start, end, rtol=0, atol=1e-6 if record.life.base.family.head else 0)
    elif rule == "sum":
        torch.testing.assert_close(start, end, rtol=1e-5, atol=5e-6)
        assert not torch.allclose(end, record.began["first"]["outputs"]["first"], atol=1e-4), "nothing was learned"
    elif not record.life.base.family.head:
        assert torch.equal(start, record.began["first"]["outputs"]["first"])


@pytest.mark.parametrize("method", TRAINED)
def test_one_adapter_named_default_and_nothing_else_trains(method, model, lived):
    record = lived(method, model)
    head = record.life.base.family.head
    for seen in record.began.values():
        assert seen["active"] == seen["adapters"] == ["default"]
        for name in seen["trainable"]:
            assert ".default" in name
            assert "lora_" in name or (head and f"{head}.modules_to_save" in name)


@pytest.mark.parametrize("method", METHODS)
def test_the_base_is_untouched_but_for_what_was_folded(method, model, lived):
    record = lived(method, model)
    life, pristine = record.life, dict(lives.base(model).model.named_parameters())
    assert life.mount.model is None
    adapted = {f"{name}.weight": name for name in life.newest or {}}
    head = f"{life.base.family.head}."
    now = dict(life.base.model.named_parameters())
    assert {n for n in now if not n.startswith(head)} == {n for n in pristine if not n.startswith(head)}
    for name, weight in now.items():
        if name.startswith(head):
            continue
        assert not weight.requires_grad
        if name in adapted and parse(method).consolidator.rule == "sum":
            expected = carried(life, adapted[name])
            torch.testing.assert_close(weight - pristine[name], expected, rtol=1e-4, atol=2e-7)
        else:
            assert torch.equal(weight, pristine[name]), name


@pytest.mark.parametrize("method", TRAINED)
def test_what_is_stored_is_what_was_learned(method, model, lived):
    record = lived(method, model)
    stages = record.life.folder.stages()
    sites, rest = adapters.read(stages[-1].path)
    assert adapters.same(sites, record.life.newest)
    head = record.life.base.family.head
    for name, tensor in rest.items():
        assert torch.equal(tensor, record.adapter[name.removeprefix(f"{head}.")])
    assert bool(rest) == bool(head)
    whole, _ = adapters.read(record.folder)
    for name, site in whole.items():
        summed = record.life.method.consolidator.rule == "sum"
        expected = carried(record.life, name) if summed else sites[name].dense()
        torch.testing.assert_close(site.dense(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", penalised())
def test_strength_zero_is_the_base_method_bit_for_bit(method, model, lived, tmp_path):
    full = parse(method)
    assert all("lam" in {f.name for f in fields(p)} for p in full.penalties)
    zero = replace(full, penalties=tuple(replace(p, lam=0.0) for p in full.penalties))
    none = replace(full, penalties=())
    same = [m for m in SEQUENTIAL if replace(none, name=m) == parse(m)]
    if same:
        plain = lived(same[0], model).adapter
    else:
        life = lives.lived(model, none.named("none"), tmp_path / "none", evaluation={"schedule": "diagonal"})
        plain = lives.adapter(life)
    off = lives.lived(model, zero, tmp_path / "zero", evaluation={"schedule": "diagonal"})
    assert lives.apart(lives.adapter(off), plain) == 0
    assert lives.apart(lived(method, model).adapter, plain) > 0, "the penalty does nothing"


@pytest.mark.parametrize("method", METHODS)
def test_kept_is_what_the_method_declares(method, model, lived):
    record = lived(method, model)
    kept, rule = record.life.kept(), record.life.method.consolidator
    if record.life.method.regime == "frozen":
        assert kept == {"kept_elements": 0, "adapter_elements": 0, "kept_bytes": 0}
        return
    stages = 1 if record.life.method.regime == "joint" else 2
    assert kept["kept_elements"] == rule.kept(stages, kept["adapter_elements"])
    assert kept["adapter_elements"] == sum(t.numel() for s in record.life.newest.values() for t in s.tensors.values())
    beside = sum(
        part.kept(*site.shape, site.rank, 1 if rule.rule == "continue" else stages)
        for part in record.life.method.remembering
        for site in record.life.newest.values()
    )
    rows = [row for task in record.life.kept_rows for row in task.train]
    assert kept.get("kept_rows", 0) == len(rows)
    assert bool(rows) <= entry(method).replay
    held = kept["kept_bytes"] - 4 * kept["kept_elements"] - kept.get("kept_row_bytes", 0)
    bounded = any(getattr(part, "at_most", False) for part in record.life.method.remembering)
    assert 0 < held <= beside if bounded else held == beside
