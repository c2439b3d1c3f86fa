"""Trackers get one run over all tasks: steps that go on counting, scores under ``cl/``, one beginning and one end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from everlora import Example, Learner, Task
from everlora.core.errors import ConfigError
from everlora.runtime.time_left import Plan
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


def test_a_task_that_is_scored_before_it_is_learned_counts_once_it_is(recorder: type[Recorder]) -> None:
    tracking = Tracking(["recorder"])
    tracking.begin(Plan((), ["a", "b", "c"], known=[1, 2, 3]))
    arguments: Any = SimpleNamespace()
    tracking.on_train_begin(arguments, TrainerState(), None)
    for scores in ({"a": 90.0, "b": 50.0}, {"a": 80.0, "b": 70.0, "c": 40.0}):  # as --eval-schedule forward does
        tracking.scored(scores)
    first, second = (logs for _, logs in recorder.made[0].logs)
    assert first == {"cl/score/a": 90.0, "cl/score/b": 50.0, "cl/oa": 90.0}
    assert (second["cl/oa"], second["cl/bwt"]) == (75.0, -10.0)


def test_callbacks_of_ones_own_see_every_task_and_change_nothing(tmp_path: Path, recorder: type[Recorder]) -> None:
    own = Recorder()
    watched, alone = follow(tmp_path / "watched", own), follow(tmp_path / "alone")
    assert own.events == [("begin", 0), ("end", 3)] * 3
    assert watched.cells == alone.cells
    files = [folder / "tasks/03-c/adapter_model.safetensors" for folder in (tmp_path / "watched", tmp_path / "alone")]
    assert files[0].read_bytes() == files[1].read_bytes()


class Writer:
    """A SummaryWriter that keeps what it is given."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str, int]] = {}
        self.images: dict[str, Any] = {}
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts[name] = (text, step)

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        self.images[name] = (image, dataformats)


def test_the_matrix_is_sent_as_a_table_and_a_picture(
    tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    monkeypatch.setattr(Recorder, "tb_writer", writer, raising=False)
    monkeypatch.setattr(Recorder, "logging_dir", None, raising=False)
    matrix = follow(tmp_path / "l", Tracking(["recorder"]))
    text, step = writer.texts["cl/matrix"]
    assert step == 9
    assert text.splitlines()[-1] == "| c | " + " | ".join(f"{score:.1f}" for score in matrix.final) + " |"  # type: ignore[str-format]
    assert [(value, at) for name, value, at in writer.scalars if name == "cl/oa"][-1] == (
        pytest.approx(sum(matrix.final) / 3),
        9,
    )
    assert not any(name.startswith("cl/") for one in recorder.made for _, logs in one.logs for name in logs)
    image, form = writer.images["cl/matrix"]
    assert form == "HWC"
    assert image.shape[2] == 3
    assert recorder.made[0].logging_dir == str(tmp_path / "l" / "logs")  # type: ignore[attr-defined]


def test_the_size_of_the_update_is_sent(tmp_path: Path, recorder: type[Recorder]) -> None:
    follow(tmp_path / "l", Tracking(["recorder"]))
    sent = [(step, logs["cl/update_norm"]) for step, logs in recorder.made[0].logs if "cl/update_norm" in logs]
    rows = [json.loads(line) for line in (tmp_path / "l/tasks/01-a/modules.jsonl").read_text().splitlines()]
    own = sum(row["update_norm"] ** 2 for row in rows if row["step"] == 2) ** 0.5
    assert sent[0] == (1, pytest.approx(own, rel=1e-4))  # what a step finds is what the one before has left


def test_each_learner_gets_a_run_of_its_own_and_one_that_goes_on_counts_on(
    tmp_path: Path, recorder: type[Recorder]
) -> None:
    tracking = Tracking(["recorder"])
    settings: Any = {"train": {"max_steps": 3, "logging_steps": 1}}
    for name in ("one", "two"):
        Learner("tiny-bert", out=tmp_path / name, callbacks=[tracking], **settings).follow(TASKS[:1])
    again = Learner("tiny-bert", out=tmp_path / "one", resume=True, report_to="recorder", **settings)
    again.follow(TASKS[:2])
    assert [one.events for one in recorder.made] == [
        [("begin", 0), ("end", 3)],
        [("begin", 0), ("end", 3)],
        [("begin", 3), ("end", 6)],
    ]
    assert "cl/bwt" in [logs for _, logs in recorder.made[-1].logs][-1]


class Biases:
    """A module of Weights & Biases that notes which runs begin."""

    def __init__(self) -> None:
        self.run: object = None
        self.begun: list[tuple[str, str]] = []

    def init(self, **run: Any) -> None:
        assert run["resume"] == "allow"
        self.run = run
        self.begun.append((run["name"], run["id"]))

    def finish(self) -> None:
        self.run = None

    def log(self, logs: Any) -> None:
        assert self.run is not None

    def Image(self, image: Any) -> Any:
        return image

    def Table(self, **table: Any) -> Any:
        return table


def test_a_later_lesson_goes_on_with_the_run_of_its_learner(
    tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Biases()
    monkeypatch.setattr(Recorder, "_wandb", module, raising=False)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    for folder in ("one", "two"):
        learner = Learner("tiny-bert", out=tmp_path / folder, train={"max_steps": 1}, report_to="recorder")
        learner.follow(TASKS[:1])
    Learner.open(tmp_path / "one", report_to="recorder").learn(TASKS[1], train={"max_steps": 1})
    names, ids = zip(*module.begun, strict=True)
    assert names == ("one", "two", "one")
    assert ids[0] == ids[2] != ids[1]
    assert Learner.open(tmp_path / "one").verify().problems == []


def test_one_of_several_processes_reports(recorder: type[Recorder]) -> None:
    tracking = Tracking(["recorder"])
    tracking.begin(Plan((), ["a"]))
    tracking.on_train_begin(TrainingArguments(), TrainerState(is_world_process_zero=False), TrainerControl())
    tracking.scored({"a": 50.0})
    tracking.close()
    (tracker,) = recorder.made
    assert (tracker.events, tracker.logs) == ([], [])


def test_a_tracker_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot report to nowhere: nowhere is not supported, only"):
        Tracking(["nowhere"])
