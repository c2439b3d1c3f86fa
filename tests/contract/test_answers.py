"""Answering: the end is learned and generation stops there; padding, batch size and caches change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny_runs
from everlora.evaluation.scoring import score_task
from everlora.models.families.base import IGNORE, positions
from everlora.models.families.heads import unwrap_model
from everlora.models.families.packed import shared_length
from tiny_runs import MODELS

TEXT = ("tiny-llama", "tiny-t5")


def mixed(model, rows=11):
    """More rows than a batch, of quite different lengths, from the first task."""
    task = tiny_runs.stream(model)[0]
    return replace(task, test=task.train[:rows])


@pytest.mark.parametrize("scoring", ["labels", "generate"])
@pytest.mark.parametrize("model", MODELS)
def test_the_batch_size_changes_no_answer(model, scoring, recorded):
    record = recorded("ella", model)
    ready, family, task = record.learner.inference_model(), record.learner.base.family, mixed(model)
    one, three, eight = (
        score_task(ready, family, task, scoring=scoring, batch_size=size).predictions for size in (1, 3, 8)
    )
    assert one == three == eight
    assert scoring == "generate" or set(one) <= set(task.labels)


@pytest.mark.parametrize("model", MODELS)
def test_logits_do_not_depend_on_the_neighbours(model, recorded):
    record = recorded("ella", model)
    ready, family, task = record.learner.inference_model(), record.learner.base.family, mixed(model)
    together = tiny_runs.outputs(ready, family, task)
    alone = torch.cat([tiny_runs.outputs(ready, family, task, [row]) for row in task.test])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", TEXT)
def test_label_scores_equal_a_full_pass_per_label(model, recorded):
    """Cache, repetition and padding against the plainest form: one sequence, one label, no padding."""
    record = recorded("ella", model)
    ready, family, task = record.learner.inference_model(), record.learner.base.family, tiny_runs.stream(model)[1]
    spaced = model == "tiny-llama"
    answers = [family.prompter.answer(label, task, spaced=spaced) for label in task.labels]
    assert len({len(a) for a in answers}) > 1
    expected, sources = [], []
    with torch.no_grad():
        for row in task.test:
            prompt, _ = family.prompter.prompt(row, task, room=20)
            source = prompt if spaced else [*prompt, family.processor.eos_token_id]
            sources.append(source)
            for answer in answers:
                if spaced:
                    ids = torch.tensor([prompt + answer[:-1]])
                    logits = ready(input_ids=ids).logits[0, len(prompt) - 1 :]
                else:
                    decoded = torch.tensor([[family.pad, *answer[:-1]]])
                    logits = ready(input_ids=torch.tensor([source]), decoder_input_ids=decoded).logits[0]
                each = logits.double().log_softmax(-1)[range(len(answer)), answer]
                expected.append(each.sum())
        width = max(map(len, sources))
        left = [[family.pad] * (width - len(s)) + s for s in sources]
        right = [s + [family.pad] * (width - len(s)) for s in sources]
        ids = torch.tensor(left if spaced else right)
        pads = [[0] * (width - len(s)) for s in sources]
        ones = [[1] * len(s) for s in sources]
        mask = torch.tensor([p + o if spaced else o + p for p, o in zip(pads, ones, strict=True)])
        scores = family._scores(ready, ids, mask, answers)
    expected = torch.stack(expected).view(len(task.test), len(answers))
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("model", TEXT)
def test_the_prompt_is_read_once_for_all_labels(model, recorded):
    """What prompts begin with passes once, the rest of each and the labels' tree behind it, all in one sequence."""
    record = recorded("ella", model)
    ready, family, task = record.learner.inference_model(), record.learner.base.family, tiny_runs.stream(model)[1]
    passes = []
    inner = unwrap_model(ready).get_encoder() if model == "tiny-t5" else unwrap_model(ready)
    note = inner.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    family.predict(ready, task, task.test, "labels")
    note.remove()
    answers = [family.answer(label, task) for label in task.labels]
    prompts = [family.prompter.prompt(row, task, room=1)[0] for row in task.test]
    if model == "tiny-t5":  # an encoder reads a prompt from both sides, so that nothing of it is shared
        assert [shape[0] for shape in passes] == [len(task.test)]
        return
    shared = shared_length(prompts)
    assert shared > len(family.prompter.tokens(task.instruction))
    nodes = {tuple(answer[:end]) for answer in answers for end in range(1, len(answer))}
    assert passes == [(1, shared + sum(len(prompt) - shared + len(nodes) for prompt in prompts))]


@pytest.mark.parametrize("model", TEXT)
def test_the_end_of_the_sequence_is_a_target(model):
    family, (task, *_) = tiny_runs.base(model).family, tiny_runs.stream(model)
    end = family.processor.eos_token_id
    for row in task.train:
        targets = [t for t in family.features(row, task)["labels"] if t != IGNORE]
        assert targets[-1] == end
        assert targets.count(end) == 1
        assert family.processor.decode(targets[:-1]).strip() == row.target


@pytest.mark.parametrize("model", TEXT)
def test_generation_stops_where_the_answer_ends(model, tmp_path):
    """A learned answer is followed by the end and by nothing else, long before the limit."""
    task = tiny_runs.text_task("only", ["great music", "no"], seed=5)
    rows = [replace(row, target="great music") for row in task.train]
    task = replace(task, labels=(), train=rows)
    learner = tiny_runs.train_sequence(
        model,
        "seqlora",
        tmp_path / "run",
        (task,),
        lora={"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        train={"max_steps": 40, "learning_rate": 1e-2},
        evaluation={"scoring": "generate", "schedule": "final"},
    )
    ready, family = learner.inference_model(), learner.base.family
    made = []
    generate = unwrap_model(ready).generate

    def note(**kwargs):
        made.append(generate(**kwargs))
        return made[-1]

    unwrap_model(ready).generate = note
    answers = family.predict(ready, task, task.test, "generate")
    assert [a.strip() for a in answers] == ["great music"] * len(task.test)
    new = made[0][:, -12:]
    assert made[0].shape[1] < family.limits.answer, "ran on to the limit"
    assert all(family.processor.eos_token_id in row for row in new.tolist())


def test_decoders_are_padded_on_the_left():
    family, (task, *_) = tiny_runs.base("tiny-llama").family, tiny_runs.stream("tiny-llama")
    rows = [family.features(row, task) for row in task.train[:8]]
    batch = family.collate(rows)
    mask = batch["attention_mask"]
    assert mask[:, -1].all(), "every row ends at the right edge"
    assert (mask.diff(dim=1) >= 0).all(), "padding stands on the left only"
    assert 0 in mask
    for row, positions_, on in zip(rows, batch["position_ids"], mask.bool(), strict=True):
        assert positions_[on].tolist() == list(range(len(row["input_ids"])))
    assert torch.equal(batch["position_ids"], positions(mask))
    assert (batch["labels"][~mask.bool()] == IGNORE).all()


@pytest.mark.parametrize("model", TEXT)
def test_logits_are_made_only_where_there_is_a_target(model, tmp_path):
    made, wanted = [], []

    def watch(_):
        inner = unwrap_model(learner.backend.model)
        inner.get_output_embeddings().register_forward_hook(
            lambda _, args, out: made.append((args[0].shape[:-1].numel(), out.shape[:-1].numel()))
        )

    learner = tiny_runs.begin(model, "ella", tmp_path / "run", progress=tiny_runs.Watch(learning=watch))
    collate = learner.base.family.collate

    def counted(rows):
        batch = collate(rows)
        wanted.append(int((batch["labels"] != IGNORE).sum()))
        return batch

    learner.base.family.collate = counted
    learner.follow([tiny_runs.stream(model)[0]])
    assert [n for n, _ in made[:3]] == [n for _, n in made[:3]] == wanted[:3]
    assert len(made) >= 3
