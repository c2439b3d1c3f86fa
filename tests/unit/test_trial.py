"""A model is tried before anything is learned: on which rows, and whose failure is told in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import everlora
from everlora import Example, Task
from everlora.core.errors import DataError, ModelError, printable
from everlora.training.trial import OURS, check_runs

TASK = Task(
    name="mine",
    train=[Example("longer", "a"), Example("the longest", "a"), Example("mid", "a")],
    test=[Example("s", "a")],
)


def tried(fail: Callable[[], object] = lambda: None, task: Task = TASK, weights: str = "float32") -> list[list[Any]]:
    """The rows of each trial; in every one ``fail`` is called first."""
    model, rows = nn.Dropout(), list[list[Any]]()

    def try_out(given: nn.Module, of: Task, batch: list[Example]) -> None:
        assert (given, of) == (model, task)
        assert not model.training
        assert not torch.is_grad_enabled()
        fail()
        rows.append([row.input for row in batch])

    family = SimpleNamespace(try_out=try_out, truncated=7)
    precision = SimpleNamespace(describe=lambda: {"weights": weights})
    base: Any = SimpleNamespace(family=family, name="org/base", precision=precision)
    check_runs(base, model, [task])
    assert model.training
    assert family.truncated == 0, "a trial is no training"
    return rows


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_the_shortest_row_alone_and_with_the_longest() -> None:
    assert tried() == [["s"], ["s", "the longest"]]
    turns = [{"role": "user", "content": "s" * 9}]
    talk = Task(name="c", train=[Example(turns, "a")], test=[Example([{"role": "user", "content": ""}], "a")])
    assert tried(task=talk) == [[talk.test[0].input], [talk.test[0].input, turns]]


@pytest.mark.parametrize(
    ("weights", "cure"),
    [("float32", "choose another model"), ("bfloat16", "pass --dtype float32, or choose another model")],
)
def test_a_librarys_failure_is_one_line_with_a_cure(weights: str, cure: str) -> None:
    with pytest.raises(ModelError) as caught:
        tried(raising(RuntimeError("no\nkernel")), weights=weights)
    assert str(caught.value) == (
        f"the model 'org/base' fails on rows of task 'mine' with {weights} weights, inside its own code: no kernel; "
        f"{cure}"
    )


def test_the_reason_is_cut_and_never_empty() -> None:
    with pytest.raises(ModelError, match=f"own code: {'x' * 300}; choose"):
        tried(raising(RuntimeError("x" * 301)))
    with pytest.raises(ModelError, match="own code: NotImplementedError; choose"):
        tried(raising(NotImplementedError()))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError(), RuntimeError("cannot allocate memory: 3 GB"), DataError("a bad row")],
    ids=repr,
)
def test_a_lack_of_memory_and_what_is_said_already_go_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        tried(raising(error))
    assert caught.value is error


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    assert Path(everlora.__file__).parent == OURS, "beside it, where it is installed, are the libraries"
    with pytest.raises(TypeError, match="expected string"):
        tried(lambda: printable(None))  # type: ignore[arg-type]
