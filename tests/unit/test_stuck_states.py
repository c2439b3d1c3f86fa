"""States in which a folder was once stuck, and ends of a process that once were a traceback."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

import sealing
from everlora.analysis.status import status
from everlora.archive.committed import read_stages
from everlora.archive.history import read_history
from everlora.archive.manifest import COMMIT, MANIFEST
from everlora.cli.app import run_command
from everlora.cli.common import interruptible
from everlora.core.errors import FolderError, Interrupted
from everlora.learner.opened import create
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.diff import diff
from everlora.learner.verbs.export import export
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.repair import repair
from everlora.learner.verbs.verify import verify
from everlora.runtime.progress import Progress
from taught import contents, task_of, taught, teach
from torture.faults import tree


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("whole") / "run", "ella(store=svd)", "first", "second")


@pytest.fixture
def learner(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def full(*args: Any, **options: Any) -> None:
    raise SafetensorError("I/O error: No space left on device (os error 28)")


WRITERS: dict[str, Callable[[Path], object]] = {
    "everlora.adapters.files.save_file": lambda place: teach(place, "third"),
    "everlora.training.memory.save_file": lambda place: teach(place, "third"),
    "everlora.training.checkpoint.save_file": lambda place: learn(
        place, task_of("tiny-llama", "third"), Teaching(train={"max_steps": 3}), {"save_steps": 1}, progress=Progress()
    ),
    "transformers.modeling_utils.safe_save_file": lambda place: export(place, place.with_name("out")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_tensors_on_a_full_disk_are_one_line(writer: str, learner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = writer.rpartition(".")
    monkeypatch.setattr(importlib.import_module(module), name, full)
    before = tree(learner / "tasks")
    with pytest.raises(FolderError, match="No space left on device"):
        WRITERS[writer](learner)
    # The root is written when a task is committed already, which then stands.
    stands = {"03-third"} if writer == "everlora.adapters.files.save_file" else set()
    after = tree(learner / "tasks")
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == stands
    assert {name: after[name] for name in before} == before
    assert verify(learner).problems == []
    assert not learner.with_name("out").exists()


def test_a_head_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = taught(tmp_path / "run", "inclora", "first", "second", model="tiny-bert")
    before = contents(place)
    monkeypatch.setattr("everlora.learner.removal.save_file", full)
    with pytest.raises(FolderError, match="No space left on device"):
        forget(place, "first")
    assert contents(place) == before


def test_what_only_reads_does_so_on_a_disk_that_is_read_only(learner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, whole_contents = tree(learner), contents(learner)

    def read_only(place: Any, *rest: Any) -> None:
        raise OSError(30, "Read-only file system", str(place))

    with monkeypatch.context() as patch:
        for name in ("mkdir", "unlink", "replace", "rename", "rmdir"):
            patch.setattr(os, name, read_only)
        assert [task.name for task in status(learner).tasks] == ["first", "second"]
        assert [act.act for act in read_history(learner)] == ["init", "learn", "learn"]
        assert verify(learner, "data").state == "sound"
        assert diff(f"{learner}@first", learner).norm
        for words in (["verify", "--repair"], ["eval"], ["rollback", "--to", "first"], ["compact", "--rank", "1"]):
            assert run_command([words[0], str(learner), *words[1:]]) == FolderError.status
    assert {name for name in tree(learner) if ".owner" not in name} == set(before)
    assert contents(learner) == whole_contents


@pytest.mark.parametrize("method", [pytest.param("progprompt", marks=pytest.mark.full), "l2p"])
def test_the_status_of_prompts_needs_no_matrix(method: str, tmp_path: Path) -> None:
    model = "tiny-t5" if method == "progprompt" else "tiny-bert"
    place = taught(tmp_path / "run", method, "first", model=model)
    found = status(place)
    assert found.holdings.memory_bytes > 0
    (place / "matrix.json").unlink()
    assert status(place).holdings == found.holdings
    commit = place / "tasks/01-first" / COMMIT
    sealing.edit(commit, lambda content: content.pop("holdings"))  # as an older everlora wrote it
    (place / MANIFEST).unlink()
    assert run_command(["status", str(place)]) == FolderError.status


@pytest.mark.parametrize("state", ["torn", "empty", "gone"])
def test_a_torn_run_yaml_is_made_again_of_what_tasks_know(state: str, learner: Path) -> None:
    before, place = (learner / "run.yaml").read_bytes(), learner / "run.yaml"
    if state == "gone":
        place.unlink()
    else:
        place.write_bytes(before[: len(before) // 2 if state == "torn" else 0])
    assert verify(learner, "quick").state == "damaged"
    assert repair(learner).state == "sound"
    assert place.read_bytes() == before


@pytest.mark.parametrize("command", ["status", "ask", "eval", "history", "rollback", "export", "verify"])
def test_a_commit_that_is_a_folder_is_one_line_of_every_verb(
    command: str, learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = learner / "tasks/02-second" / COMMIT
    place.unlink()
    place.mkdir()
    more = {"ask": ["a"], "rollback": ["--to", "first"], "export": ["-o", str(learner.with_name("out"))]}
    status = run_command([command, str(learner), *more.get(command, [])])
    said = capsys.readouterr()
    if command == "history":
        assert status in (0, FolderError.status)
    else:
        assert status == (1 if command == "verify" else FolderError.status)
        assert "COMMIT" in said.out + said.err


@pytest.mark.parametrize("left", ["tasks", ".lock", ".owner.json", "tasks/.01-first.part"])
def test_a_kill_in_the_first_moment_leaves_a_folder_that_init_takes(left: str, learner: Path, tmp_path: Path) -> None:
    place = tmp_path / "new"
    (place / left).parent.mkdir(parents=True)
    if "." in left and not left.endswith(".part"):
        (place / left).write_text("")
    else:
        (place / left).mkdir(parents=True)
    if left.endswith(".part"):
        with pytest.raises(FolderError, match="not empty"):  # it holds a task that was begun: nobody's first moment
            create(place, {"model": "tiny-llama"})
        return
    create(place, {"model": "tiny-llama"})
    assert verify(place).state == "sound"


class EndsInAnswers(Progress):
    """Lets the system end the process when a task's rows are being answered."""

    def phase(self, label: str, total: int) -> None:
        if label == "answering third":
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_process_that_is_ended_while_it_answers_goes_on_behind_training(learner: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    third = task_of("tiny-llama", "third")
    uncut = Path(shutil.copytree(learner, tmp_path / "uncut"))
    try:
        with pytest.raises(Interrupted, match="interrupted; all stands") as caught, interruptible("all stands"):
            learn(learner, third, Teaching(by="ada", keep_tests=4), progress=EndsInAnswers())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.status == 128 + signal.SIGTERM
    assert [stage.evaluated for stage in read_stages(learner)] == [True, True, False]
    assert verify(learner).state == "unfinished"
    weights = (learner / "tasks/03-third/adapter_model.safetensors").stat()
    teach(learner, "third")
    assert (learner / "tasks/03-third/adapter_model.safetensors").stat().st_mtime_ns == weights.st_mtime_ns
    teach(uncut, "third")
    assert contents(learner) == contents(uncut)
