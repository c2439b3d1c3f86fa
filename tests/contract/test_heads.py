"""The classification head that grows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import tiny_runs
from everlora import parse
from plan import daily, pairs, planned
from tiny_runs import SEQUENTIAL

HEADED = ("tiny-bert", "tiny-vit")
GROWING = pairs([m for m in SEQUENTIAL if parse(m).consolidator.rule != "keep"], HEADED)


@pytest.mark.parametrize(("method", "model"), planned(GROWING, daily(GROWING)))
def test_rows_of_other_labels_stay(method, model, tmp_path):
    """Tasks: yes/no; three others; no/great music, whose no is its own. Only the rows of a task's own labels move."""
    heads = []

    def note(task):
        heads.append((list(learner.base.family.labels), _head(learner)))

    learner = tiny_runs.begin(model, method, tmp_path / "run", progress=tiny_runs.Watch(learning=note, answering=note),
                       evaluation={"schedule": "diagonal"})  # fmt: skip
    learner.follow(tiny_runs.stream(model, 3))
    starts_and_ends = [heads[0:2], heads[2:4], heads[4:6]]
    for task, (start, end) in zip(tiny_runs.stream(model, 3), starts_and_ends, strict=True):
        assert start[0] == end[0]
        own = learner.base.family.label_rows(task)
        for k, label in enumerate(start[0]):
            if k in own or not (parse(method).outputs or parse(method).sees_again):  # which train former labels, too
                assert torch.equal(start[1][k], end[1][k]) == (k not in own), (task.name, label)
    for before, after in pairwise(starts_and_ends):
        old = len(before[1][0])
        assert torch.equal(after[0][1][:old], before[1][1]), "growing changed a row"
    assert heads[-1][0] == ["yes", "no", "positive", "very negative indeed", "neutral", "no (third)", "great music"]
    assert learner.base.model.config.id2label == dict(enumerate(heads[-1][0]))


def _head(learner) -> torch.Tensor:
    """Weight and bias of the head in use, one row per label."""
    inside = learner.backend.model or learner.base.model
    found = dict(inside.named_parameters())
    stem = "base_model.model.classifier.modules_to_save.default" if learner.backend.model else "classifier"
    return torch.cat([found[f"{stem}.weight"], found[f"{stem}.bias"][:, None]], 1).detach().clone()


@pytest.mark.parametrize("model", HEADED)
def test_per_task_starts_with_a_head_of_its_own(model, tmp_path):
    rows = []
    learner = tiny_runs.begin(
        model, "per-task", tmp_path / "run", progress=tiny_runs.Watch(learning=lambda _: rows.append(_head(learner)))
    )
    learner.follow(tiny_runs.stream(model))
    assert [len(r) for r in rows] == [2, 3]


@pytest.mark.parametrize("method", ["seqlora", "seqft", "data", "sd-lora", "osf", "l2p"])
def test_a_head_is_a_copy_in_fp32_until_its_task_is_done(method, tmp_path):
    """A step of 1e-4 is lost on a weight in bf16; and an interrupted task leaves the head as it was."""
    learner = tiny_runs.begin(
        "tiny-bert", method, tmp_path / "run", dtype="bfloat16", progress=tiny_runs.Cut(task="first"),
        evaluation={"schedule": "diagonal"},
    )  # fmt: skip
    own = learner.base.model.get_submodule("classifier")
    with pytest.raises(KeyboardInterrupt):
        learner.follow(tiny_runs.stream("tiny-bert"))
    assert learner.base.model.get_submodule("classifier") is own
    learner.progress = tiny_runs.Watch()
    learner.follow(tiny_runs.stream("tiny-bert"))
    head = learner.base.model.get_submodule("classifier")
    assert head is not own
    assert {p.dtype for p in head.parameters()} == {torch.float32}
