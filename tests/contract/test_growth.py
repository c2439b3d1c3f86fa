"""What a task costs beyond its own training does not grow with the tasks before it: files and bytes are counted."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everlora import Learner
from everlora.analysis.status import status
from everlora.archive import root, unchanged
from everlora.core.errors import FolderError
from tiny_runs import text_task

TRAIN = {"max_steps": 1, "logging_steps": 1}
WATCHED: list[tuple[Path, Counter[str]]] = []
"""The folder that is watched, and where what is opened there is counted; a hook of Python's cannot be taken off."""


def _look(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and WATCHED and isinstance(args[0], str) and args[0].startswith(str(WATCHED[0][0])):
        WATCHED[0][1]["opened"] += 1


sys.addaudithook(_look)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count files that are opened below a folder, files that are hashed, and their bytes but for those at its root."""
    count, digest = Counter[str](), hashlib.file_digest

    def hashed(file: Any, algorithm: str) -> Any:
        count["hashed"] += 1
        count["bytes"] += Path(file.name).stat().st_size if "tasks" in Path(file.name).parts else 0
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", hashed)
    monkeypatch.setattr(unchanged, "SETTLED", 0)  # tasks of models that are no toys take longer than that
    WATCHED.append((tmp_path, count))
    yield count
    WATCHED.clear()


def taught(learner: Learner, number: int, count: Counter[str]) -> dict[str, int]:
    count.clear()
    learner.learn(text_task(f"task{number}", ("yes", "no"), number), train=TRAIN, forecast=False)
    return dict(count)


def test_a_task_reads_and_hashes_no_more_after_six_tasks_than_after_two(tmp_path: Path, counted: Counter[str]) -> None:
    learner = Learner("tiny-llama", method="ella", out=tmp_path / "learner", seed=0)
    each = [taught(learner, number, counted) for number in range(1, 8)]
    third, seventh = each[2], each[6]
    assert (seventh["opened"], seventh["hashed"]) == (third["opened"], third["hashed"])
    assert seventh["bytes"] < 1.1 * third["bytes"], "numbers have more digits, and the card more tasks"
    assert third["hashed"] < 60

    counted.clear()
    status(tmp_path / "learner")
    assert (counted["hashed"], counted["opened"]) == (0, 3), "run.yaml, and the manifest twice"


def test_a_process_that_opens_a_learner_reads_each_file_once(
    tmp_path: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner("tiny-llama", method="ella", out=tmp_path / "learner", seed=0)
    for number in range(3):
        taught(learner, number, counted)
    files = [file for file in (tmp_path / "learner/tasks").rglob("*") if file.is_file()]
    monkeypatch.setattr(root.hash_of, "_known", {})  # as if this were another process
    counted.clear()
    _ = Learner.open(tmp_path / "learner").model
    assert counted["bytes"] == sum(file.stat().st_size for file in files)


def test_a_task_that_was_changed_between_two_lessons_is_refused_by_the_second(
    tmp_path: Path, counted: Counter[str]
) -> None:
    """What is in memory does not stand for what is on disk."""
    learner = Learner("tiny-llama", method="ella", out=tmp_path / "learner", seed=0)
    taught(learner, 1, counted)
    weights = tmp_path / "learner/tasks/01-task1/adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FolderError, match=r"adapter_model\.safetensors is missing or was changed"):
        taught(learner, 2, counted)
    weights.write_bytes(content)
    taught(learner, 2, counted)


@pytest.mark.parametrize("method", ["lb-cl", "kfac"])
def test_in_memory_a_learner_goes_on_as_one_that_is_opened_anew(method: str, tmp_path: Path) -> None:
    tasks = [text_task(f"task{number}", ("yes", "no"), number) for number in range(3)]
    on = Learner("tiny-llama", method=method, out=tmp_path / "on", seed=0)
    for task in tasks:
        on.learn(task, train=TRAIN)
        on.ask(["is it?"])
    Learner("tiny-llama", method=method, out=tmp_path / "anew", seed=0).learn(tasks[0], train=TRAIN)
    for task in tasks[1:]:
        Learner.open(tmp_path / "anew").learn(task, train=TRAIN)
    for name in ("tasks/03-task2/adapter_model.safetensors", "adapter_model.safetensors"):
        assert (tmp_path / "on" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()
