"""Rows that share what they begin with, packed rows and label trees give what rows by themselves give."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import plan
import tiny_runs
from everlora import Example, Task, load
from everlora.models.families import causal, label_tree
from everlora.models.families.base import IGNORE
from everlora.models.families.frozen import FrozenLayers
from everlora.models.families.label_tree import LabelTree, score_labels
from everlora.models.families.packed import (
    ARCHITECTURES,
    can_pack,
    can_pack_in_training,
    can_share,
    shared_length,
    worth_packing,
)
from everlora.models.loading import Loaded
from everlora.training.trainer import token_mean

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracle import models

LABELS = ("good", "bad", "very good", "very slow city", "slow")
ROWS = [Example(text, "good") for text in ("film", "music team great", "slow fast book city service price yes", "no")]
TASK = Task(name="rows", train=ROWS, test=ROWS, labels=LABELS, instruction="Say which one fits item number.")
BUILT = sorted(ARCHITECTURES & models.DECODERS.keys() - {"qwen2"})  # for which the oracle's words make no tokenizer
DAILY = {"llama", "gpt2", "qwen3_moe", "gptj", "phi3"}


@pytest.fixture(params=[plan.case((kind,), kind in DAILY) for kind in BUILT])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Loaded:
    return load(str(models.build("decoder", request.param, tmp_path)), dtype="float32")


def prompts_of(family: causal.Causal) -> list[list[int]]:
    return [family.prompter.prompt(row, TASK, room=10)[0] for row in ROWS]


def test_a_tree_of_labels_scores_as_every_pair_does(base, monkeypatch: pytest.MonkeyPatch) -> None:
    family, prompts = base.family, prompts_of(base.family)
    assert can_share(base.model)
    assert shared_length(prompts) > 20
    exhaustive = family.label_scores(base.model, prompts, TASK, shares=False)
    one_by_one = torch.cat(
        [
            family._scores_of_pairs(
                base.model, torch.tensor([p]), torch.ones(1, len(p)), [family.answer(a, TASK) for a in LABELS]
            )
            for p in prompts
        ]
    )
    torch.testing.assert_close(exhaustive, one_by_one, atol=1e-4, rtol=1e-5)
    for packs in (True, False):  # without padding, as on a CPU, and with it, as on other devices
        monkeypatch.setattr(label_tree, "can_pack", lambda model, packs=packs: packs and can_pack(model))
        tree = family.label_scores(base.model, prompts, TASK, shares=True)
        torch.testing.assert_close(tree, one_by_one, atol=1e-4, rtol=1e-5)


def test_written_answers_are_those_of_each_prompt_by_itself(base) -> None:
    together = base.family.predict(base.model, TASK, ROWS, "generate")
    assert together == [base.family.predict(base.model, TASK, [row], "generate")[0] for row in ROWS]


def loss_and_gradient(model: nn.Module, family: causal.Causal, *, packs: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the rows, and the gradient of every weight that has one."""
    batch = family.collate([family.features(row, TASK) for row in ROWS])
    family.packs = packs
    model.zero_grad()
    logits, targets = family.logits(model, batch)
    loss = token_mean(logits, targets, targets.numel())
    loss.backward()
    family.packs = False
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_packed_rows_have_the_loss_and_the_gradient_of_padded_ones(base, monkeypatch: pytest.MonkeyPatch) -> None:
    model = base.model.requires_grad_(True).train()
    if not can_pack_in_training(model):
        pytest.skip("dropout, or attention of the model's own")
    passes: list[tuple[int, ...]] = []
    note = model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    loss, gradient = loss_and_gradient(model, base.family, packs=True)
    prompts = [base.family.features(row, TASK)["input_ids"] for row in ROWS]
    shared = shared_length([base.family.prompter.prompt(row, TASK, room=10)[0] for row in ROWS])
    assert passes == [(1, shared + sum(len(prompt) - shared for prompt in prompts))]
    note.remove()
    whole, expected = loss_and_gradient(model, base.family, packs=False)
    torch.testing.assert_close(loss, whole, atol=0, rtol=1e-5)
    assert gradient.keys() == expected.keys()
    for name, each in gradient.items():
        assert (each - expected[name]).norm() <= 1e-5 * expected[name].norm() + 1e-7, name


@pytest.mark.parametrize("ends", [[[]], [[], []], [[], [3], [4, 5, 6]], [[3], [4]]], ids=str)
def test_rows_may_have_one_token_of_their_own(ends: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal prompts and of a single one only the last token is not shared; each key serves several queries here."""
    base = load("tiny-llama", dtype="float32")
    assert base.model.config.num_key_value_heads < base.model.config.num_attention_heads
    prompts = [[*range(10, 50), *end] for end in ends]
    rows = [{"input_ids": prompt, "labels": [IGNORE] * (len(prompt) - 1) + [7]} for prompt in (*prompts, prompts[0])]
    monkeypatch.setattr(causal, "worth_packing", lambda *_: shared_length([row["input_ids"] for row in rows]))
    base.family.packs = True
    packed, _ = base.family.logits(base.model, base.family.collate(rows))
    base.family.packs = False
    torch.testing.assert_close(packed, base.family.logits(base.model, base.family.collate(rows))[0])


def test_labels_of_one_token_are_scored(base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their trees have no node, and of equal prompts and of a single one only the last token is not shared."""
    tree, prompts = LabelTree.of([[7], [8]]), [[4, 5, 6], [4, 5, 6]]
    with torch.no_grad():
        expected = base.model(input_ids=torch.tensor(prompts)).logits[:, -1].log_softmax(-1)[:, [7, 8]]
        for packs in (True, False):
            monkeypatch.setattr(label_tree, "can_pack", lambda model, packs=packs: packs and can_pack(model))
            for some in (prompts, prompts[:1]):
                torch.testing.assert_close(
                    score_labels(base.model, some, tree, 0, base.family.run), expected[: len(some)]
                )


def test_packed_rows_go_on_from_what_frozen_layers_made_of_them() -> None:
    base = load("tiny-llama", dtype="float32")
    model, family = base.model.requires_grad_(False).train(), base.family
    upper = model.model.layers[1].self_attn.q_proj.requires_grad_(True)
    loss, gradient = loss_and_gradient(model, family, packs=True)
    whole, _ = loss_and_gradient(model, family, packs=False)
    family.frozen = frozen = FrozenLayers.below(model, ["model.layers.1.self_attn.q_proj"])
    assert frozen is not None
    seen: list[int] = []
    note = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    for _ in range(2):
        found, theirs = loss_and_gradient(model, family, packs=True)
        torch.testing.assert_close(found, loss, atol=0, rtol=1e-5)
        torch.testing.assert_close(found, whole, atol=0, rtol=1e-5)
        for name, each in theirs.items():
            torch.testing.assert_close(each, gradient[name], atol=1e-7, rtol=1e-4)
    note.remove()
    assert frozen.fits
    assert upper.weight.grad is not None
    assert len(seen) == 3  # tried whole, tried cut, and computed once; the second time from what is held


def test_rows_are_packed_where_that_saves_tokens() -> None:
    ids = torch.arange(400).view(4, 100)
    mask = torch.ones(4, 100, dtype=torch.long)
    where = torch.zeros(4, 100, dtype=torch.bool)
    where[:, -1] = True
    assert worth_packing(ids, mask, where) is None  # nothing is padded, nothing shared
    mask[1:, :60] = 0
    assert worth_packing(ids, mask, where) == 0
    same = torch.arange(100).expand(4, -1)
    assert worth_packing(same, torch.ones(4, 100), where) == 99  # of each row one token is left
    where[:, 50:] = True
    assert worth_packing(same, torch.ones(4, 100), where) == 50  # no position with a loss is shared
    assert worth_packing(same[:1], torch.ones(1, 100), where[:1]) is None
    where[2], mask = False, torch.ones(4, 100)
    mask[1, :5], mask[3, :99] = 0, 0
    where[1] = False
    assert worth_packing(ids, mask, where) is None
    mask[2, :99] = 0
    assert worth_packing(ids, mask, where) == 0  # rows without a loss, padded or not


@pytest.mark.parametrize("setting", ["lora_dropout", "checkpointing"])
def test_what_differs_from_row_to_row_is_not_packed(setting: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = load("tiny-llama").model
    assert can_pack_in_training(model)
    if setting == "checkpointing":
        model.gradient_checkpointing_enable()
        assert not can_pack_in_training(model)
        return
    adapted = get_peft_model(model, LoraConfig(lora_dropout=0.1, target_modules=["q_proj"]))
    assert not can_pack_in_training(adapted)


def test_a_prompt_stays_in_one_piece_where_an_adapter_looks_at_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates of DATA's pairs are set by all of a prompt, so that no part of it is read by itself."""
    learner = tiny_runs.begin("tiny-llama", "data(components=2,blocks=1,low=2,high=3)", tmp_path / "run")
    learner.follow(tiny_runs.stream("tiny-llama")[:2])
    model, family, task = learner.inference_model(), learner.base.family, tiny_runs.stream("tiny-llama")[1]
    assert can_share(model)
    monkeypatch.setattr(causal, "score_labels", None)  # which nobody calls
    assert family.whole_prompts
    assert len(family.predict(model, task, task.test, "labels")) == len(task.test)
    learner.backend.detach()
    assert not family.whole_prompts


def test_the_scores_of_a_tree_do_not_depend_on_the_order_of_labels() -> None:
    base = load("tiny-llama", dtype="float32")
    prompts, answers = prompts_of(base.family), [base.family.answer(label, TASK) for label in LABELS]
    with torch.no_grad():
        scores = score_labels(base.model, prompts, LabelTree.of(answers), base.family.pad, base.family.run)
        turned = score_labels(base.model, prompts, LabelTree.of(answers[::-1]), base.family.pad, base.family.run)
    torch.testing.assert_close(scores.flip(1), turned, atol=1e-5, rtol=1e-5)
    assert (base.family.collate([base.family.features(ROWS[0], TASK)])["labels"] != IGNORE).any()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_turn_by_length_are_not_shared(kind: str, tmp_path: Path) -> None:
    base = load(str(models.build("decoder", "llama", tmp_path)), dtype="float32")
    assert can_share(base.model)
    base.model.config.rope_parameters = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4}
    assert not can_share(base.model)


def test_an_empty_prompt_shares_nothing() -> None:
    assert shared_length([[], [1, 2]]) == 0


def test_many_labels_are_scored_a_few_prompts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load("tiny-llama", dtype="float32")
    prompts = prompts_of(base.family)
    together = base.family.label_scores(base.model, prompts, TASK, shares=True)
    monkeypatch.setattr(causal, "LOGITS", 1)
    one_by_one = base.family.label_scores(base.model, prompts, TASK, shares=True)
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_that_is_a_function_is_drawn_for_each_row(
    p: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest direction of SD-LoRA drops its input by a function, which no module of the model tells."""
    calls: list[object] = []
    monkeypatch.setattr(causal, "worth_packing", lambda *batch: calls.append(batch))
    learner = tiny_runs.begin("tiny-llama", "sd-lora", tmp_path / "run", lora={"r": 4, "lora_dropout": p})
    learner.follow(tiny_runs.stream("tiny-llama")[:1])
    assert bool(calls) == (p == 0)
