"""Heads of label names, rows of a task's own, and the labels over which a loss is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import tiny_runs
from everlora import Example, Task, load
from everlora.core.errors import EverloraError
from everlora.models.families import Classifier
from everlora.training.trainer import token_mean

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


def prepared(*tasks: Task, by_task: bool) -> tuple[Any, Classifier]:
    base = load("tiny-bert", device="cpu", dtype="float32", pooling="mean")
    family = base.family
    assert isinstance(family, Classifier)
    family.by_task = by_task
    family.prepare(base.model, tasks, torch.Generator().manual_seed(0))
    return base.model, family


def task(name: str, *labels: str, shared: bool | None = None) -> Task:
    rows = [Example(f"film {name} {label}", label) for label in labels]
    return Task(name=name, train=rows, test=rows, labels=labels, shared_labels=shared)


@torch.no_grad()
def test_rows_are_unit_embeddings_of_names_by_the_model_as_it_was_loaded(tmp_path: Path) -> None:
    """They stay as they are, also where an earlier task has changed the body; the body learns."""
    heads: list[torch.Tensor] = []

    def note(_: str) -> None:
        found = dict((learner.backend.model or learner.base.model).named_parameters())
        heads.append(next(p for n, p in found.items() if n.endswith("modules_to_save.default.weight")).clone())

    watch = tiny_runs.Watch(learning=note, answering=note)
    learner = tiny_runs.begin(
        "tiny-bert", "inclora", tmp_path / "run", head="names", pooling="mean", progress=watch, **DIAGONAL
    )
    with torch.enable_grad():
        learner.follow(tiny_runs.stream("tiny-bert"))
    untouched = load("tiny-bert", device="cpu", dtype="float32", pooling="mean")
    expected = []
    for word in [label for one in tiny_runs.stream("tiny-bert") for label in one.labels]:
        ids = torch.tensor([untouched.family.processor(word).input_ids])
        mean = untouched.model.base_model(input_ids=ids).last_hidden_state[0].mean(0)
        expected.append(mean / mean.norm())
    for head in heads:
        torch.testing.assert_close(head, torch.stack(expected)[: len(head)], rtol=1e-5, atol=1e-6)
    assert [len(head) for head in heads] == [2, 2, 5, 5, 5]  # both tasks are answered at the end
    assert torch.equal(heads[2], heads[3])
    bias = learner.base.model.get_submodule("classifier").bias
    assert not bias.any()
    for update in learner.past:
        assert all(float(site.dense().norm()) > 1e-3 for site in update.values())


@pytest.mark.parametrize("method", ["seqft", "sd-lora", "osf", "seqlora"])
def test_no_form_trains_rows_of_names(method: str, tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "run", head="names", pooling="mean", **DIAGONAL)
    fresh = load("tiny-bert", device="cpu", dtype="float32", pooling="mean")
    assert isinstance(fresh.family, Classifier)
    fresh.family.fixed = True
    fresh.family.prepare(fresh.model, tiny_runs.stream("tiny-bert"), torch.Generator())
    found = learner.base.model.get_submodule("classifier").weight
    assert torch.equal(found, fresh.model.get_submodule("classifier").weight)


def test_a_run_with_rows_of_names_that_was_cut_goes_on_bit_by_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"head": "names", "lora": {"layers": "top:1"}, **DIAGONAL}
    whole = tiny_runs.train_sequence("tiny-bert", "ella", tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-bert", "ella", tmp_path / "cut", progress=tiny_runs.Cut(), **settings)
    resumed = tiny_runs.train_sequence("tiny-bert", "ella", tmp_path / "cut", resume=True, **settings)
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        ("tiny-bert", ("0", "1"), "the label '0' has no name, and --head names makes rows of names"),
        ("tiny-llama", ("no", "yes"), "--head names is for encoders of texts, and 'tiny-llama' is of the family dec"),
        ("tiny-vit", ("no", "yes"), "--head names is for encoders of texts, and 'tiny-vit' is of the family image"),
    ],
)
def test_heads_of_names_that_cannot_be_are_refused_in_a_line(
    model: str, labels: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(EverloraError, match=message) as refused:
        tiny_runs.train_sequence(model, "seqlora", tmp_path / "run", [task("a", *labels)], head="names")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("by_task", [True, False])
@torch.no_grad()
def test_the_loss_of_a_row_is_over_its_own_tasks_labels_where_the_task_is_known(by_task: bool) -> None:
    """Two tasks are learned together: log Σ exp of two logits or of five, minus the target's."""
    first, second = task("a", "no", "yes"), task("b", "bad", "so so", "good")
    model, family = prepared(first, second, by_task=by_task)
    batch = family.collate([family.features(first.train[1], first), family.features(second.train[0], second)])
    logits, targets = family.logits(model, batch)
    raw = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    own = [raw[0, :2], raw[1, 2:]] if by_task else list(raw)
    closed = (own[0].logsumexp(0) - raw[0, 1] + own[1].logsumexp(0) - raw[1, 2]) / 2
    torch.testing.assert_close(token_mean(logits, targets, 2).double(), closed, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(cross_entropy(logits, targets).double(), closed, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("scoring", "touched"), [("labels", False), ("generate", True)])
def test_learning_tasks_together_moves_a_row_by_rows_of_its_own_task_alone(
    scoring: str, touched: bool, tmp_path: Path
) -> None:
    """The setting decides: a row of the second task pushes the labels of the first one down, or does not."""
    settings: dict[str, Any] = {"evaluation": {"scoring": scoring, "schedule": "final"}}
    learner = tiny_runs.begin("tiny-bert", "mtl", tmp_path / "run", **settings)
    first, second = task("a", "no", "yes"), task("b", "bad", "good")
    learner.base.family.prepare(learner.base.model, [first, second], torch.Generator().manual_seed(0))
    head = learner.base.model.get_submodule("classifier").requires_grad_(True)
    batch = learner.base.family.collate([learner.base.family.features(second.train[0], second)])
    logits, targets = learner.base.family.logits(learner.base.model, batch)
    cross_entropy(logits, targets).backward()
    assert bool(head.weight.grad[:2].any()) == touched
    assert head.weight.grad[2:].any(1).all()


def test_labels_of_one_name_are_two_rows_or_one(tmp_path: Path) -> None:
    for shared, rows, names in ((None, 4, ["no", "yes", "no (b)", "yes (b)"]), (True, 2, ["no", "yes"])):
        tasks = [task("a", "no", "yes", shared=shared), task("b", "no", "yes", shared=shared)]
        learner = tiny_runs.train_sequence("tiny-bert", "seqlora", tmp_path / str(shared), tasks)
        assert learner.base.model.get_submodule("classifier").out_features == rows
        assert learner.base.family.labels == names
        model = learner.inference_model()
        for one in tasks:
            for scoring in ("labels", "generate"):
                answers = learner.base.family.predict(model, one, one.test, scoring)  # type: ignore[arg-type]
                assert {*answers} <= {"no", "yes"}


def test_labels_that_are_the_same_tokens_are_answered_as_the_task_calls_them() -> None:
    """Two tasks' rows are then the same, and the first of them would be every answer of both."""
    base = load("minilm", device="cpu", dtype="float32")
    family, tasks = base.family, [task("a", "Café", "Bar"), task("b", "cafe", "pub")]
    assert isinstance(family, Classifier)
    family.fixed = True
    family.prepare(base.model, tasks, torch.Generator().manual_seed(0))
    rows = base.model.get_submodule(str(family.head)).weight
    assert torch.equal(rows[0], rows[2])
    coffee = [Example("espresso and croissants at a small table on the boulevard: a cafe", "")]
    assert [family.predict(base.model, one, coffee, "generate") for one in tasks] == [["Café"], ["cafe"]]


@pytest.mark.parametrize("method", ["l2p", "progprompt"])
def test_prompts_are_no_part_of_a_pooled_text(method: str, tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "run", pooling="mean", **DIAGONAL)
    seen: list[torch.Tensor] = []
    model = learner.inference_model()
    model.get_submodule("bert").register_forward_hook(lambda *given: seen.append(given[-1].last_hidden_state))
    one = tiny_runs.stream("tiny-bert")[-1]
    batch = learner.base.family.collate([learner.base.family.features(row, one) for row in one.test])
    learner.base.family.logits(model, batch)
    assert seen[0].shape[:2] == batch["input_ids"].shape
