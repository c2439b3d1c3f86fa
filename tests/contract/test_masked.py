"""MIGU in whole runs: which rows move, on which hosts, whatever the split, padding and stops."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import tiny_runs
from everlora import parse
from everlora.core.updates import LowRank
from everlora.models.tokens import Tokens
from everlora.parts.masks import MagnitudeMask, strongest
from everlora.training.probe import Probe
from plan import crossed

SGD = {"optim": "sgd", "learning_rate": 0.5}


@dataclass(frozen=True, kw_only=True)
class Spied(MagnitudeMask):
    """Keeps what it has seen and made."""

    seen: ClassVar[list[Any]] = []

    def look(self, seen: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
        masks = super().look(seen, state)
        self.seen.append((seen, masks))
        return masks


def spied(host: str, **options: Any) -> Any:
    Spied.seen.clear()
    return replace(parse(host), transforms=(*parse(host).transforms, Spied(**options)), name=host)


def moved(learner: tiny_runs.SequentialLearner) -> dict[str, Tensor]:
    """Rows that the last task has moved, by module and factor; of a fresh pair of B alone, which starts at 0."""
    first = learner.backend.load(learner.folder.stages()[0].path)[0]
    found = {}
    for name, site in learner.newest.items():
        for key, tensor in site.tensors.items():
            begun = first[name].tensors[key]
            if learner.method.adapter.policy == "new":
                if key != "B":
                    continue
                begun = torch.zeros_like(tensor)
            found[f"{name}.{key}"] = (tensor - begun).any(-1)
    return found


def one_step(**more: Any) -> dict[str, Any]:
    return {"train": {"max_steps": 1, **more}}


@crossed(model=tiny_runs.MODELS, host=["seqlora", "o-lora"])
def test_one_step_moves_three_rows_in_ten_and_no_other(model: str, host: str, tmp_path) -> None:
    learner = tiny_runs.train_sequence(
        model, f"{host}+migu", tmp_path / "run", **one_step(per_device_train_batch_size=24)
    )
    rows = moved(learner)
    assert rows
    for place, mask in rows.items():
        n = len(mask)
        assert 0 < int(mask.sum()) <= n - -(-7 * (n - 1) // 10), place
    free = moved(tiny_runs.train_sequence(model, host, tmp_path / "host", **one_step(per_device_train_batch_size=24)))
    assert all(int(free[place].sum()) > int(mask.sum()) for place, mask in rows.items())


@pytest.mark.parametrize("train", [{"max_steps": 3}, {**SGD, "max_steps": 3}], ids=["adamw", "sgd"])
@pytest.mark.parametrize("mask_update", [True, False])
def test_momentum_would_move_masked_rows(train: dict[str, Any], mask_update: bool, tmp_path) -> None:
    """Over one step each: a row that is masked now and was not before stays only if the step is masked, too."""
    method = spied("seqlora", mask_update=mask_update)
    learner = tiny_runs.begin("tiny-llama", method, tmp_path / "run", train=train)
    before: list[Any] = []
    steps: list[Any] = []

    class Steps(tiny_runs.Watch):
        def advance(self, count: int = 1, note: str = "") -> None:
            now = learner.backend.extract()
            if before:
                steps.append(
                    {n: {k: t - before[-1][n].tensors[k] for k, t in s.tensors.items()} for n, s in now.items()}
                )
            before.append(now)

        def phase(self, label: str, total: int) -> None:
            before.clear()
            if label == "learning second":
                steps.clear()
                before.append(learner.backend.extract())

    learner.progress = Steps()
    learner.follow(tiny_runs.stream("tiny-llama"))
    groups = len(Spied.seen) // 3
    stray = 0
    for step, changes in enumerate(steps[:3]):
        for _, masks in Spied.seen[step * groups : (step + 1) * groups]:
            for key in ("A", "B"):
                stacked = [c[key] for c in changes.values() if c[key].shape[0] == masks[key].shape[1]]
                if len(stacked) == masks[key].shape[0]:
                    stray += int((torch.stack(stacked) * (1 - masks[key])).any(-1).sum())
    assert len(steps) >= 3
    expected = not mask_update and "optim" not in train
    assert bool(stray) is expected


@pytest.mark.parametrize("host", ["seqlora", "o-lora", "nlnb-cl"])
def test_tau_zero_is_the_host_bit_for_bit(host: str, tmp_path, recorded) -> None:
    off = tiny_runs.train_sequence(
        "tiny-t5", f"{host}+migu(tau=0)", tmp_path / "run", evaluation={"schedule": "diagonal"}
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(off), recorded(host, "tiny-t5").adapter) == 0
    on = tiny_runs.train_sequence("tiny-t5", f"{host}+migu", tmp_path / "on", evaluation={"schedule": "diagonal"})
    assert tiny_runs.largest_difference(tiny_runs.adapter(on), recorded(host, "tiny-t5").adapter) > 1e-4


def test_the_first_task_is_the_hosts(tmp_path) -> None:
    tasks = tiny_runs.stream("tiny-bert")[:1]
    with_mask = tiny_runs.train_sequence("tiny-bert", "migu", tmp_path / "a", tasks)
    assert (
        tiny_runs.largest_difference(
            tiny_runs.adapter(with_mask),
            tiny_runs.adapter(tiny_runs.train_sequence("tiny-bert", "seqlora", tmp_path / "b", tasks)),
        )
        == 0
    )


@crossed(model=tiny_runs.MODELS, outputs=["combined", "lora_only", "random"])
def test_the_masks_are_the_same_for_every_split_of_a_batch(model: str, outputs: str, tmp_path) -> None:
    """Micro-batches of 8 and of 1 pad differently: the masks agree because padding does not count."""
    runs = []
    for rows in (8, 1):
        method = spied("seqlora", outputs=outputs)
        train = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 8 // rows, **SGD}
        learner = tiny_runs.train_sequence(model, method, tmp_path / f"{rows}", train=train)
        runs.append((list(Spied.seen), tiny_runs.adapter(learner)))
    (one, first), (many, second) = runs
    assert len(one) == len(many) > 0
    for (_, a), (_, b) in zip(one, many, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert tiny_runs.largest_difference(first, second) < 1e-5


def test_rows_of_b_are_judged_by_the_outputs_that_were_asked_for(tmp_path) -> None:
    """On one batch from one start: the layer's outputs, or those of the update alone."""
    sizes = {}
    for outputs in ("combined", "lora_only"):
        method = spied("seqlora", outputs=outputs)
        tiny_runs.train_sequence(
            "tiny-llama", method, tmp_path / outputs, train={"max_steps": 1, "per_device_train_batch_size": 24}
        )
        sizes[outputs] = [seen for seen, _ in Spied.seen]
        for seen, masks in Spied.seen:
            asked = seen["update"] if outputs == "lora_only" else seen["B"]
            assert torch.equal(masks["B"][..., 0], strongest(asked, 0.7))
    for layer, update in zip(sizes["combined"], sizes["lora_only"], strict=True):
        assert torch.equal(layer["A"], update["A"])
        assert not torch.allclose(layer["B"], update["update"])


def test_statistics_are_cleared_after_each_step(tmp_path) -> None:
    """At a learning rate of next to nothing, equal batches show equal magnitudes; sums would grow."""
    method = spied("seqlora")
    train = {"learning_rate": 1e-12, "per_device_train_batch_size": 24}
    tiny_runs.train_sequence("tiny-llama", method, tmp_path / "run", train=train)
    groups = len(Spied.seen) // 3
    for (a, _), (b, _) in zip(Spied.seen[:groups], Spied.seen[groups:], strict=False):
        torch.testing.assert_close(a["B"], b["B"], rtol=1e-6, atol=0)


def test_the_control_draws_anew_for_every_step_and_module(tmp_path) -> None:
    tiny_runs.train_sequence("tiny-llama", spied("seqlora", outputs="random"), tmp_path / "run")
    masks = [m.flatten() for _, made in Spied.seen for m in made["B"]]
    assert all(int(m.sum()) == len(m) - -(-7 * (len(m) - 1) // 10) for m in masks)
    assert len({tuple(m.tolist()) for m in masks}) == len(masks) > 3


def test_an_encoder_decoder_knows_whose_padding_a_layer_reads() -> None:
    """Sources and answers of one length: only the place of a layer tells which mask is its own."""
    loaded = tiny_runs.fresh("tiny-t5")
    model, family = loaded.model, loaded.family
    ids = torch.randint(5, 20, (2, 4))
    source = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    labels = torch.tensor([[7, -100, -100, -100], [7, 8, 9, 1]])
    batch = {"input_ids": ids, "attention_mask": source, "decoder_input_ids": ids, "labels": labels}
    found: dict[str, Tensor] = {}
    layers = {
        n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.rsplit(".", 1)[-1] in "qkv"
    }
    with Tokens(model) as tokens:
        tokens.set_batch(family, batch)
        hooks = [
            layer.register_forward_hook(lambda m, args, out, n=n: found.update({n: tokens.of(m, args[0])}))
            for n, layer in layers.items()
        ]
        family.logits(model, batch)
        for hook in hooks:
            hook.remove()
    assert found.keys() == layers.keys()
    for name, mask in found.items():
        encoders = name.startswith("encoder") or ("EncDec" in name and name[-1] in "kv")
        assert torch.equal(mask, source.bool() if encoders else labels != -100), name
    assert any("EncDec" in name for name in found)


def test_no_hook_is_left_behind_and_the_past_is_not_looked_at(tmp_path) -> None:
    learner = tiny_runs.begin("tiny-t5", "inclora+migu", tmp_path / "run")
    learner.follow(tiny_runs.stream("tiny-t5"))
    assert not any(module._forward_hooks for module in learner.base.model.modules())
    model = learner.backend.attach(seed=1)
    probe = Probe(learner.backend.output_layers(), learner.backend.trainable(), False, Tokens(model), 0)
    task = learner.base.family
    batch = task.collate(
        [task.features(row, tiny_runs.stream("tiny-t5")[0]) for row in tiny_runs.stream("tiny-t5")[0].train[:2]]
    )
    with probe:
        probe.tokens.set_batch(task, batch)
        task.logits(model.eval(), batch)
        assert probe.sums == {}
        task.logits(model.train(), batch)
        assert probe.sums.keys() == learner.backend.trainable().keys()
    assert all(isinstance(site, LowRank) for site in learner.backend.trainable().values())


@pytest.mark.parametrize("method", ["migu", "o-lora+migu", "migu(outputs=random)"])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(method: str, tmp_path) -> None:
    whole = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-bert", method, tmp_path / "cut", progress=tiny_runs.Cut())
    again = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "cut", resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(again)) == 0
    assert json.loads((tmp_path / "cut" / "matrix.json").read_text()) == json.loads(
        (tmp_path / "whole" / "matrix.json").read_text()
    )
