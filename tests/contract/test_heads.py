"""The classification head that grows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import lives
from everlora import parse
from lives import SEQUENTIAL
from plan import daily, pairs, planned

HEADED = ("tiny-bert", "tiny-vit")
GROWING = pairs([m for m in SEQUENTIAL if parse(m).consolidator.rule != "keep"], HEADED)


@pytest.mark.parametrize(("method", "model"), planned(GROWING, daily(GROWING)))
def test_rows_of_other_labels_stay(method, model, tmp_path):
    """Tasks: yes/no; three others; no/great music. Only the rows of a task's own labels move."""
    heads = []

    def note(task):
        heads.append((list(life.base.family.labels), _head(life)))

    life = lives.begin(model, method, tmp_path / "run", progress=lives.Watch(learning=note, answering=note),
                       evaluation={"schedule": "diagonal"})  # fmt: skip
    life.follow(lives.stream(model, 3))
    starts_and_ends = [heads[0:2], heads[2:4], heads[4:6]]
    for task, (start, end) in zip(lives.stream(model, 3), starts_and_ends, strict=True):
        assert start[0] == end[0]
        for k, label in enumerate(start[0]):
            if label in task.labels or not (
                parse(method).outputs or parse(method).sees_again
            ):  # which train former labels, too
                assert torch.equal(start[1][k], end[1][k]) == (label not in task.labels), (task.name, label)
    for before, after in pairwise(starts_and_ends):
        old = len(before[1][0])
        assert torch.equal(after[0][1][:old], before[1][1]), "growing changed a row"
    assert heads[-1][0] == ["yes", "no", "positive", "very negative indeed", "neutral", "great music"]
    assert life.base.model.config.id2label == dict(enumerate(heads[-1][0]))


def _head(life) -> torch.Tensor:
    """Weight and bias of the head in use, one row per label."""
    inside = life.backend.model or life.base.model
    found = dict(inside.named_parameters())
    stem = "base_model.model.classifier.modules_to_save.default" if life.backend.model else "classifier"
    return torch.cat([found[f"{stem}.weight"], found[f"{stem}.bias"][:, None]], 1).detach().clone()


@pytest.mark.parametrize("model", HEADED)
def test_per_task_starts_with_a_head_of_its_own(model, tmp_path):
    rows = []
    life = lives.begin(
        model, "per-task", tmp_path / "run", progress=lives.Watch(learning=lambda _: rows.append(_head(life)))
    )
    life.follow(lives.stream(model))
    assert [len(r) for r in rows] == [2, 3]


@pytest.mark.parametrize("method", ["seqlora", "seqft", "data", "sd-lora", "osf", "l2p"])
def test_a_head_is_a_copy_in_fp32_until_its_task_is_done(method, tmp_path):
    """A step of 1e-4 is lost on a weight in bf16; and an interrupted task leaves the head as it was."""
    life = lives.begin(
        "tiny-bert", method, tmp_path / "run", dtype="bfloat16", progress=lives.Cut(task="first"),
        evaluation={"schedule": "diagonal"},
    )  # fmt: skip
    own = life.base.model.get_submodule("classifier")
    with pytest.raises(KeyboardInterrupt):
        life.follow(lives.stream("tiny-bert"))
    assert life.base.model.get_submodule("classifier") is own
    life.progress = lives.Watch()
    life.follow(lives.stream("tiny-bert"))
    head = life.base.model.get_submodule("classifier")
    assert head is not own
    assert {p.dtype for p in head.parameters()} == {torch.float32}
