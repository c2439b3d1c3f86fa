"""What is tried before anything is learned, and whose fault an error is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from everlora.core.errors import ConfigError, ModelError
from everlora.data.task import Example, Task
from everlora.training.trial import OURS, check_runs

ROWS = [Example("a row", "yes"), Example("a longer row", "no"), Example("a", "yes")]
TASK = Task(name="news", train=ROWS, test=[Example("the longest row of all", "no")], labels=("yes", "no"))


def tried(run: Callable[[list[Example]], object], weights: str = "bfloat16", tasks: Any = (TASK,)) -> Any:
    """The family after ``run`` was tried on batches, with a model that trains before and after."""
    model = nn.Dropout()

    def try_out(given: nn.Module, task: Task, batch: list[Example]) -> None:
        assert given is model
        assert not given.training
        assert not torch.is_grad_enabled()
        run(batch)

    family = SimpleNamespace(try_out=try_out, truncated=3)
    base = SimpleNamespace(name="m", family=family, precision=SimpleNamespace(describe=lambda: {"weights": weights}))
    try:
        check_runs(cast(Any, base), model, tasks)
    finally:
        assert model.training
        assert torch.is_grad_enabled()
    return family


def test_the_shortest_row_and_the_longest_are_tried_of_every_task() -> None:
    seen: list[list[str]] = []
    draws: list[float] = []
    pictures = [Example(np.zeros((2, 2, 3), np.uint8), "yes"), Example(np.ones((3, 3, 3), np.uint8), "no")]
    other = Task(name="seen", train=pictures, test=pictures[:1], labels=("yes", "no"), form="image")

    def run(batch: list[Example]) -> None:
        seen.append([str(row.input) if isinstance(row.input, str) else row.target for row in batch])
        draws.append(float(torch.rand(1)))

    state = torch.get_rng_state()
    family = tried(run, tasks=[TASK, other])
    assert seen == [["a"], ["a", "the longest row of all"], ["yes"], ["yes", "yes"]]
    assert family.truncated == 0, "texts cut here count for nothing"
    assert len(set(draws)) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_the_longest_chat_is_that_of_the_most_text() -> None:
    chats = [[{"role": "user", "content": "x" * n}] for n in (9, 3, 30)]
    talk = Task(name="talk", train=[Example(chat, "y") for chat in chats], test=[Example(chats[0], "y")], form="chat")
    sizes: list[list[int]] = []
    tried(lambda batch: sizes.append([len(cast(Any, row.input)[0]["content"]) for row in batch]), tasks=[talk])
    assert sizes == [[3], [3, 30]]


@pytest.mark.parametrize(
    ("weights", "said", "reason"),
    [("bfloat16", "no\n  kernel", "no kernel"), ("float32", "", "ValueError"), ("float32", "x" * 400, "x" * 300)],
)
def test_an_error_of_a_library_is_one_line_with_what_to_try(weights: str, said: str, reason: str) -> None:
    def run(batch: list[Example]) -> None:
        raise ValueError(said)

    with pytest.raises(ModelError) as caught:
        tried(run, weights)
    cure = "choose another model" if weights == "float32" else "pass --dtype float32, or choose another model"
    assert str(caught.value) == (
        f"the model 'm' fails on rows of task 'news' with {weights} weights, inside its own code: {reason}; {cure}"
    )


def ours(batch: list[Example]) -> None:
    """Fail as a file of the package does."""
    exec(compile("raise ValueError('ours')", str(OURS / "training" / "x.py"), "exec"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("gone"), "gone"),
        (torch.OutOfMemoryError("gone"), "gone"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "can't allocate memory"),
        (ConfigError("a line of ours"), "a line of ours"),
        (None, "ours"),
    ],
)
def test_a_lack_of_memory_and_what_is_ours_stay_what_they_are(error: Exception | None, message: str) -> None:
    def run(batch: list[Example]) -> None:
        if error:
            raise error
        ours(batch)

    with pytest.raises(type(error) if error else ValueError, match=message) as caught:
        tried(run)
    assert not isinstance(caught.value, ModelError)
