"""Whole runs with rows of earlier tasks, and those that learn all tasks at once from a part of their rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny_runs
from everlora import Example, Task, parse
from everlora.adapters import files as adapters
from everlora.core.errors import ConfigError, FolderError, TrainingError
from everlora.training import rehearsal
from everlora.training.trainer import ExtraLosses
from plan import crossed
from tiny_runs import MODELS

HALF = "seqlora-replay(ratio=0.5)"


@crossed(
    model=["tiny-llama", "tiny-bert"], hosted=[("seqlora", ""), ("o-lora", ""), ("seqlora", ",resample=each-task")]
)
def test_ratio_zero_is_the_host_bit_for_bit(hosted, model, tmp_path):
    host, options = hosted
    zero, plain, half = (
        tiny_runs.adapter(tiny_runs.train_sequence(model, method, tmp_path / str(k)))
        for k, method in enumerate((f"{host}+replay(ratio=0{options})", host, f"{host}+replay(ratio=0.5{options})"))
    )
    assert tiny_runs.largest_difference(zero, plain) == 0
    assert tiny_runs.largest_difference(half, plain) > 0, "replay does nothing"


@pytest.mark.parametrize(("model", "resample"), [*((model, "fixed") for model in MODELS), ("tiny-bert", "each-task")])
def test_resumed_is_uninterrupted(model, resample, tmp_path):
    method, tasks = f"replay(ratio=0.5,resample={resample},balanced=true)", tiny_runs.stream(model, 3)
    whole = tiny_runs.train_sequence(model, method, tmp_path / "whole", tasks)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence(model, method, tmp_path / "cut", tasks, progress=tiny_runs.Cut("third"))
    again = tiny_runs.train_sequence(model, method, tmp_path / "cut", tasks, resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), tiny_runs.adapter(whole)) == 0
    assert again.storage() == whole.storage()
    files = [(tmp_path / run / "tasks" / "02-second" / rehearsal.FILE) for run in ("whole", "cut")]
    assert [file.exists() for file in files] == [resample == "fixed"] * 2
    if resample == "fixed":
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("resample", ["fixed", "each-task"])
def test_earlier_tasks_are_always_at_hand(resample, tmp_path):
    """One cannot go on with new tasks alone: they must be given again, so rows can be drawn anew."""
    method, tasks = f"replay(ratio=0.5,resample={resample})", tiny_runs.stream("tiny-llama", 3)
    tiny_runs.train_sequence("tiny-llama", method, tmp_path / "run", tasks[:2])
    later = tiny_runs.begin("tiny-llama", method, tmp_path / "run", resume=True)
    with pytest.raises(FolderError, match="give the same tasks") as told:
        later.follow(tasks[2:])
    assert "\n" not in str(told.value)


def test_the_split_of_a_batch_has_no_meaning(tmp_path):
    size, steps = 2, 4
    train = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "optim": "sgd"}
    whole = tiny_runs.train_sequence("tiny-t5", HALF, tmp_path / "whole", train={"optim": "sgd"})
    split = tiny_runs.train_sequence("tiny-t5", HALF, tmp_path / "split", train=train)
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(split)) < 1e-6


def test_what_is_kept_is_counted(tmp_path):
    tasks = tiny_runs.stream("tiny-llama", 3)
    fixed = tiny_runs.train_sequence("tiny-llama", "replay(ratio=0.3)", tmp_path / "fixed", tasks).storage()
    anew = tiny_runs.train_sequence(
        "tiny-llama", "replay(ratio=0.3,resample=each-task)", tmp_path / "anew", tasks
    ).storage()
    none = tiny_runs.train_sequence("tiny-llama", "seqlora", tmp_path / "none", tasks).storage()
    assert fixed.stored_rows == 3 * 7  # ⌊0.3 · 24⌋
    assert anew.stored_rows == 3 * 24
    assert anew.stored_row_bytes == sum(len(r.input) + len(r.target) for t in tasks for r in t.train)
    assert "stored_rows" not in none.plain()
    assert fixed.memory_bytes == none.memory_bytes + fixed.stored_row_bytes


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_a_head_learns_the_labels_of_rehearsed_rows_too(model, tmp_path):
    """Rows for labels of the first task stay as they are without replay, and move with it."""

    def moved(method):
        learner = tiny_runs.train_sequence(model, method, tmp_path / method)
        rows = [learner.base.family.labels.index(label) for label in tiny_runs.stream(model)[0].labels]
        heads = [adapters.read(stage.path)[1] for stage in learner.folder.stages()]
        first, second = (next(t for name, t in head.items() if name.endswith("weight"))[rows] for head in heads)
        return float((second - first).abs().max())

    assert moved("seqlora") == 0
    assert moved(HALF) > 0


def test_a_small_task_of_which_nothing_is_kept_is_told(tmp_path):
    watch = tiny_runs.Watch()
    learner = tiny_runs.train_sequence("tiny-llama", "replay", tmp_path / "run", progress=watch)
    assert watch.warnings == [
        f"task {name!r}: no row of {name!r} is kept to be rehearsed" for name in tiny_runs.NAMES[:2]
    ]
    assert learner.stored_rows == []


def coloured(name: str, labels: tuple[str, str], channel: int, seed: int) -> Task:
    """Images that are bright in one colour channel, and how bright, tells the label."""
    draw = np.random.default_rng(seed)

    def rows(n: int) -> list[Example]:
        made = []
        for k in map(int, draw.integers(2, size=n)):
            pixels = draw.integers(0, 60, size=(32, 32, 3)).astype(np.uint8)
            pixels[:, :, channel] += 60 + 130 * k
            made.append(Example(pixels, labels[k]))
        return made

    return Task(name=name, train=rows(64), test=rows(16), labels=labels, form="image")


@pytest.mark.parametrize("method", [HALF, "o-lora+replay(ratio=0.5)", "kif(inner=4,outer=2,ratio=0.5)"])
def test_replay_lowers_forgetting(method, tmp_path):
    """Nobody says which task an image is from: what learns the second task alone forgets that there was a first."""
    tasks = coloured("first", ("dark red", "red"), 0, 1), coloured("second", ("dark blue", "blue"), 2, 2)
    how = {
        "train": {"max_steps": -1, "num_train_epochs": 5, "logging_steps": 100},
        "evaluation": {"scoring": "generate", "schedule": "full"},
    }
    host = "o-lora" if "o-lora" in method else "seqlora"
    without, replayed = (
        tiny_runs.begin("tiny-vit", one, tmp_path / str(k), **how).follow(tasks).cells
        for k, one in enumerate((host, method))
    )
    assert without[0][0] == replayed[0][0] >= 90  # the first task is the same, and is learned
    assert without[1][0] <= 40, "nothing is forgotten without replay"
    assert replayed[1][0] >= 90
    assert min(without[1][1], replayed[1][1]) >= 80  # and so is the second


# Learning all tasks at once


def shown(monkeypatch, method, tmp_path, tasks=None, **train):
    """The rows of each micro-batch, by the task that they are from."""
    seen, loss = [], ExtraLosses.loss
    tasks = tasks or tiny_runs.stream("tiny-bert", 3)

    def note(self, model, family, batch, logits, marks, weights=None):
        seen.append(batch["labels"].tolist())
        return loss(self, model, family, batch, logits, marks, weights)

    monkeypatch.setattr(ExtraLosses, "loss", note)
    learner = tiny_runs.begin(
        "tiny-bert", method, tmp_path / "run", train={"max_steps": -1, "num_train_epochs": 1, **train}
    )
    learner.follow(tasks)
    return learner, seen


def uneven() -> tuple[Task, ...]:
    """Three tasks of 20, 6 and 3 rows, whose labels tell them apart."""
    made = [
        tiny_runs.text_task(tiny_runs.NAMES[k], (f"{k}-yes", f"{k}-no"), seed=k, train=n)
        for k, n in enumerate((20, 6, 3))
    ]
    return tuple(made)


def test_equal_mixing_gives_every_task_its_share_of_each_batch(tmp_path, monkeypatch):
    _, seen = shown(monkeypatch, "mtl(mixing=equal)", tmp_path, uneven(), per_device_train_batch_size=6)
    assert len(seen) == 3 * 20 / 6
    for batch in seen:
        assert sorted(label // 2 for label in batch) == [0, 0, 1, 1, 2, 2]


def test_proportional_mixing_shows_every_row_once(tmp_path, monkeypatch):
    _, seen = shown(monkeypatch, "mtl", tmp_path, uneven())
    assert sorted(label // 2 for batch in seen for label in batch) == [0] * 20 + [1] * 6 + [2] * 3


def test_mixing_one_task_changes_only_the_order(tmp_path, monkeypatch):
    _, seen = shown(monkeypatch, "mtl(mixing=equal)", tmp_path, uneven()[:1])
    assert sum(map(len, seen)) == 20


def test_the_buffer_alone(tmp_path, monkeypatch):
    """The sanity bound learns those rows that replay has kept in the end, and no other."""
    learner, seen = shown(monkeypatch, "mtl-buffer(ratio=0.5,balanced=false)", tmp_path, uneven())
    assert sorted(label // 2 for batch in seen for label in batch) == [0] * 10 + [1] * 3 + [2]
    replayed = tiny_runs.train_sequence("tiny-bert", HALF, tmp_path / "replay", uneven())

    def inputs(one):
        return [[row.input for row in task.train] for task in one.stored_rows]

    assert inputs(learner) == inputs(replayed)
    again = tiny_runs.begin(
        "tiny-bert", "mtl-buffer(ratio=0.5,balanced=false)", tmp_path / "run", resume=True, train=learner.spec.train
    )
    again.follow(uneven())
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), tiny_runs.adapter(again)) == 0
    assert again.storage() == learner.storage()


def test_a_whole_buffer_is_multi_task_learning(tmp_path):
    both = [tiny_runs.train_sequence("tiny-llama", m, tmp_path / m[:4]) for m in ("mtl", "mtl-buffer(ratio=1)")]
    assert tiny_runs.largest_difference(*map(tiny_runs.adapter, both)) == 0


def test_an_empty_buffer_is_refused(tmp_path):
    with pytest.raises((ConfigError, TrainingError), match="keeps no row"):
        tiny_runs.train_sequence("tiny-llama", "mtl-buffer(balanced=false)", tmp_path / "run")


def test_another_order_of_rows_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="train_sampling_strategy=sequential"):
        tiny_runs.train_sequence(
            "tiny-llama", "mtl(mixing=equal)", tmp_path / "run", train={"train_sampling_strategy": "sequential"}
        )


def test_mixing_does_not_touch_other_randomness(tmp_path):
    """Initialisation is drawn elsewhere: without steps that learn, the adapters are the same."""
    still = {"train": {"learning_rate": 0.0}}
    a, b = (tiny_runs.train_sequence("tiny-llama", m, tmp_path / m, **still) for m in ("mtl", "mtl(mixing=equal)"))
    assert tiny_runs.largest_difference(tiny_runs.adapter(a), tiny_runs.adapter(b)) == 0
    assert replace(parse("mtl(mixing=equal)"), mixing="proportional") == parse("mtl")
    assert torch.isfinite(torch.stack([t.norm() for t in tiny_runs.adapter(a).values()])).all()
