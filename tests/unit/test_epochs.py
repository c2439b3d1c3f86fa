"""How many epochs a task gets where nobody sets epochs or steps: enough steps for few rows, one for many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.archive.folder import stages
from everlora.settings.training import MAX_EPOCHS, MIN_STEPS, TRAIN_DEFAULTS, epochs_by_size
from everlora.testing import tiny_runs


@given(rows=st.integers(1, 10_000), batch=st.integers(1, 256))
def test_epochs_are_the_fewest_that_make_enough_steps(rows: int, batch: int) -> None:
    epochs = epochs_by_size(rows, batch)
    assert 1 <= epochs <= MAX_EPOCHS
    shown = epochs * rows
    assert shown >= MIN_STEPS * batch or epochs == MAX_EPOCHS
    assert shown - rows < MIN_STEPS * batch or epochs == 1


def test_the_defaults_leave_epochs_to_the_rows() -> None:
    assert not {"num_train_epochs", "max_steps"} & TRAIN_DEFAULTS.keys()


class Lines(tiny_runs.Watch):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def info(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.parametrize(
    ("train", "steps", "epochs"),
    [
        ({}, [10, 10], [10, 10]),
        ({"num_train_epochs": 1}, [1, 1], [None, None]),
        ({"max_steps": 2}, [2, 2], [None, None]),
    ],
    ids=["by size", "epochs", "steps"],
)
def test_a_run_takes_them_says_so_and_records_them(
    train: dict[str, object], steps: list[int], epochs: list[int | None], tmp_path: Path
) -> None:
    progress, tasks = Lines(), tiny_runs.stream("tiny-bert")
    batch = max(len(task.train) for task in tasks)
    settings = {"max_steps": -1, "per_device_train_batch_size": batch, **train}
    tiny_runs.train_sequence("tiny-bert", "inclora", tmp_path / "run", progress=progress, train=settings)
    done = stages(tmp_path / "run")
    assert [stage.facts.epochs for stage in done] == epochs
    logs = [(stage.path / "training.jsonl").read_text().splitlines() for stage in done]
    assert [max(json.loads(line)["step"] for line in log) for log in logs] == steps
    said = [f"{task.name}: {len(task.train)} rows, 10 epochs of 1 step" for task in tasks]
    assert [line for line in progress.said if "epoch" in line] == (said if epochs[0] else [])
