"""Trackers get one run over all tasks: steps that go on counting, scores under ``cl/``, one beginning and one end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from everlora import Example, Learner, Task
from everlora.core.errors import ConfigError
from everlora.runtime.tracking import Tracking

ROWS = [Example("x", "yes"), Example("y", "no")] * 8
TASKS = [Task(name=name, train=ROWS, test=ROWS[:4], labels=("yes", "no")) for name in ("a", "b", "c")]


class Recorder(TrainerCallback):
    """A tracker that keeps what it is sent."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.logs: list[tuple[int, dict[str, float]]] = []
        self.made.append(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("begin", state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append((state.global_step, logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("end", state.global_step))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder


def follow(out: Path, *callbacks: TrainerCallback) -> Any:
    train = {"max_steps": 3, "logging_steps": 1, "per_device_train_batch_size": 4}
    learner = Learner("tiny-bert", method="ella", out=out, train=train, callbacks=callbacks)
    return learner.follow(TASKS)


def test_one_run_over_all_tasks(tmp_path: Path, recorder: type[Recorder]) -> None:
    matrix = follow(tmp_path / "l", Tracking(["recorder"]))
    (tracker,) = recorder.made
    assert tracker.events == [("begin", 0), ("end", 9)]
    assert [step for step, logs in tracker.logs if "loss" in logs] == list(range(1, 10))
    scores = [(step, logs) for step, logs in tracker.logs if "cl/oa" in logs]
    assert [step for step, _ in scores] == [3, 6, 9]
    assert [logs["cl/score/a"] for _, logs in scores] == [row[0] for row in matrix.cells]
    assert scores[-1][1]["cl/oa"] == pytest.approx(sum(matrix.final) / 3)
    assert scores[-1][1]["cl/bwt"] == pytest.approx(
        sum(now - then for now, then in zip(matrix.final[:2], matrix.diagonal[:2], strict=True)) / 2
    )
    assert "cl/bwt" not in scores[0][1]
    assert any("cl/penalty_share" in logs for _, logs in tracker.logs)


def test_callbacks_of_ones_own_see_every_task_and_change_nothing(tmp_path: Path, recorder: type[Recorder]) -> None:
    own = Recorder()
    watched, alone = follow(tmp_path / "watched", own), follow(tmp_path / "alone")
    assert own.events == [("begin", 0), ("end", 3)] * 3
    assert watched.cells == alone.cells
    files = [folder / "tasks/03-c/adapter_model.safetensors" for folder in (tmp_path / "watched", tmp_path / "alone")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_tracker_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot report to nowhere: nowhere is not supported, only"):
        Tracking(["nowhere"])
