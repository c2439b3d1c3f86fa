"""What verify finds in a learner's folder, what repair makes again, and what a parity gives back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import everlora
import sealing
from everlora.archive.atomic import explained, follow_umask
from everlora.archive.folder import read_run
from everlora.archive.history import read_history
from everlora.archive.manifest import COMMIT, MANIFEST, read_manifest
from everlora.archive.parity import PARITY
from everlora.archive.verify import inspect
from everlora.cli.app import run_command
from everlora.cli.common import interruptible
from everlora.core.errors import ConfigError, FolderError, Interrupted
from everlora.data.task import Example, Task
from everlora.learner.opened import create, load_learner
from everlora.learner.verbs.ask import ask
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.repair import repair
from everlora.learner.verbs.verify import keep_parity, verify
from everlora.runtime.progress import Progress

SETTINGS: Any = {
    "model": "tiny-llama",
    "method": "ewc",
    "lora": {"r": 2},
    "train": {"max_steps": 1, "per_device_train_batch_size": 2},
    "evaluation": {"scoring": "labels"},
    "device": "cpu",
}


def task(name: str, *labels: str) -> Task:
    rows = [Example(f"a {labels[k % 2]} row, number {k}", labels[k % 2]) for k in range(6)]
    return Task(name=name, train=rows[:4], test=rows[4:], labels=labels)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "learner"
    create(path, SETTINGS, by="somebody")
    for one in (task("colors", "red", "blue"), task("moods", "happy", "sad")):
        learn(path, one, progress=Progress())
    return path


@pytest.fixture
def learner(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "learner"))


def content(path: Path) -> dict[str, bytes]:
    """Everything in a folder, but for who writes to it and on what machine."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def faults(path: Path) -> list[str]:
    return sorted(problem.file for problem in inspect(path).problems)


def test_a_finished_learner_is_sound_in_every_depth(learner: Path) -> None:
    for depth in ("quick", "hashes", "data", "logits"):
        found = verify(learner, depth)
        assert (found.state, found.problems, found.unfinished, found.unseen, found.tasks) == ("sound", [], [], [], 2)
    assert len(found.notes) == 1
    assert "logits of transformers and PEFT alone" in found.notes[0]


def test_all_faults_are_listed_and_not_only_the_first(learner: Path) -> None:
    (learner / "tasks/01-colors/adapter_model.safetensors").write_bytes(b"x")
    (learner / "tasks/02-moods/evaluation-1/predictions.jsonl").unlink()
    (learner / "matrix.json").write_text("{")
    (learner / "tasks/02-moods/memory.pt").write_bytes(b"x")
    assert faults(learner) == [
        "matrix.json",
        "tasks/01-colors/adapter_model.safetensors",
        "tasks/02-moods/evaluation-1/predictions.jsonl",
        "tasks/02-moods/memory.pt",
    ]
    assert [p.file for p in inspect(learner, hashes=False).problems] != []
    assert "tasks/01-colors/adapter_model.safetensors" not in [p.file for p in inspect(learner, hashes=False).problems]


def test_a_lost_task_is_noticed_wherever_it_stood(learner: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(learner, tmp_path / "other"))
    shutil.rmtree(learner / "tasks/01-colors")
    shutil.rmtree(other / "tasks/02-moods")
    assert "tasks/01-colors" in faults(learner)
    assert "tasks/02-moods" in faults(other)
    assert "is missing" in inspect(other).problems[0].what
    assert repair(other).state == "damaged", "it cannot be made again"
    assert read_manifest(other) is not None
    assert [entry.folder for entry in read_manifest(other).tasks] == ["01-colors", "02-moods"]  # type: ignore[union-attr]


def test_settings_that_the_id_does_not_name_are_noticed(learner: Path) -> None:
    sealing.edit(learner / "run.yaml", lambda content: content["settings"].update(seed=7))
    assert "run.yaml" in faults(learner)


def resealed(stage: Path, name: str) -> None:
    """Let the COMMIT of a task list a file as it is now, and the manifest that COMMIT: a fault of the writer's."""
    from everlora.archive.root import sha256

    sealing.edit(stage / COMMIT, lambda content: content["files"].update({name: sha256(stage / name)}))
    entry = int(stage.name[:2]) - 1
    sealing.edit(
        stage.parents[1] / MANIFEST, lambda content: content["tasks"][entry].update(commit=sha256(stage / COMMIT))
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_noticed_behind_right_hashes(learner: Path, value: float) -> None:
    stage = learner / "tasks/02-moods"
    tensors = load_file(stage / "adapter_model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = value
    save_file(tensors, stage / "adapter_model.safetensors", metadata={"format": "pt"})
    resealed(stage, "adapter_model.safetensors")
    assert verify(learner).state == "sound"
    assert ["not finite" in problem.what for problem in verify(learner, "data").problems] == [True]


def test_other_shapes_and_other_bytes_than_were_kept_are_noticed(learner: Path) -> None:
    stage = learner / "tasks/02-moods"
    tensors = load_file(stage / "adapter_model.safetensors")
    dropped = [name for name in tensors if ".layers.1." in name]
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    save_file(kept, stage / "adapter_model.safetensors", metadata={"format": "pt"})
    resealed(stage, "adapter_model.safetensors")
    found = " ".join(problem.what for problem in verify(learner, "data").problems)
    assert "other modules" in found
    assert "bytes are kept" in found


def test_scores_are_the_means_of_their_rows_and_the_matrix_has_them(learner: Path) -> None:
    stage = learner / "tasks/01-colors/evaluation-1"
    rows = [json.loads(line) for line in (stage / "predictions.jsonl").read_text().splitlines()]
    rows[0]["correct"] = not rows[0]["correct"]
    (stage / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from everlora.archive.root import sha256

    digest = sha256(stage / "predictions.jsonl")
    sealing.edit(stage / COMMIT, lambda content: content["files"].update({"predictions.jsonl": digest}))
    sealing.edit(learner / MANIFEST, lambda content: content["tasks"][0].update(scores=sha256(stage / COMMIT)))
    assert verify(learner).state == "sound"
    assert "rows of colors come to" in verify(learner, "data").problems[0].what

    sealing.edit(learner / "matrix.json", lambda content: content["matrix"][1].reverse())
    before = json.loads((learner / "matrix.json").read_text())["matrix"][1]
    if before[0] != before[1]:
        assert "matrix.json" in [problem.file for problem in verify(learner, "data").problems]


def test_stock_tools_that_answer_otherwise_are_noticed(learner: Path) -> None:
    root = learner / "adapter_model.safetensors"
    tensors = {name: tensor + 0.1 for name, tensor in load_file(root).items()}
    save_file(tensors, root, metadata={"format": "pt"})
    from everlora.archive.root import sha256

    digest = sha256(root)
    sealing.edit(learner / "matrix.json", lambda content: content["root"]["digests"].update({root.name: digest}))
    files = {root.name: digest, "matrix.json": sha256(learner / "matrix.json")}
    sealing.edit(learner / MANIFEST, lambda content: content["files"].update(files))
    assert verify(learner, "data").state == "sound"
    found = verify(learner, "logits")
    assert found.state == "damaged"
    assert "answers otherwise" in found.problems[0].what


REBUILT = (
    ["README.md"],
    ["adapter_model.safetensors", "adapter_config.json"],
    ["matrix.json"],
    ["tokenizer.json", "tokenizer_config.json"],
    ["MANIFEST"],
    ["run.yaml"],
    ["environment.json"],
    ["README.md", "adapter_model.safetensors", "matrix.json", "MANIFEST", "run.yaml", "environment.json"],
)


@pytest.mark.parametrize("names", REBUILT, ids=" ".join)
@pytest.mark.parametrize("how", ["deleted", "empty"])
def test_what_can_be_made_again_is_bit_for_bit(learner: Path, names: list[str], how: str) -> None:
    before = content(learner)
    for name in names:
        (learner / name).unlink() if how == "deleted" else (learner / name).write_bytes(b"")
    listed = [] if "MANIFEST" in names else names  # without the list, nobody knows the others' hashes
    assert set(listed or ["MANIFEST"]) <= set(faults(learner))
    found = repair(learner)
    assert (found.state, found.problems) == ("sound", [])
    assert found.repaired != []
    assert content(learner) == before


def test_a_root_of_another_state_is_made_again_without_a_list(learner: Path) -> None:
    before = content(learner)
    shutil.copy(learner / "tasks/01-colors/adapter_model.safetensors", learner / "adapter_model.safetensors")
    (learner / MANIFEST).unlink()
    assert repair(learner).state == "sound"
    assert content(learner) == before


def test_nothing_that_is_sound_is_written_again(learner: Path) -> None:
    def times() -> dict[Path, int]:
        files = (file for file in learner.rglob("*") if file.is_file() and not file.name.startswith("."))
        return {file: file.stat().st_mtime_ns for file in files}

    before = times()
    assert repair(learner).repaired == []
    assert times() == before


def test_what_cannot_be_made_again_is_named(learner: Path) -> None:
    (learner / "history.jsonl").write_text("x")
    with pytest.raises(FolderError, match=r"history\.jsonl is missing or was changed"):
        read_history(learner)
    found = repair(learner)
    assert any("history.jsonl: what it said beside the tasks is lost" in line for line in found.repaired)
    assert (learner / ".history.jsonl.damaged").read_text() == "x"
    assert found.state == "sound"
    assert [act.act for act in read_history(learner)] == ["learn", "learn"]
    (learner / "tasks/01-colors/adapter_model.safetensors").unlink()
    assert [problem.cure for problem in repair(learner).problems] == ["restore it from a copy"]


def test_run_yaml_without_a_task_has_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "learner"
    create(path, SETTINGS)
    (path / "run.yaml").write_text("{")
    found = repair(path)
    assert found.state == "damaged"
    assert "no task has a copy" in found.problems[0].cure


def test_a_torn_run_yaml_names_what_makes_it_again(learner: Path) -> None:
    (learner / "run.yaml").write_bytes((learner / "run.yaml").read_bytes()[:50])
    with pytest.raises(FolderError, match="--repair"):
        read_run(learner)
    (learner / "run.yaml").unlink()
    with pytest.raises(FolderError, match="--repair"):
        read_run(learner)


def test_a_parity_restores_any_one_file(learner: Path) -> None:
    assert "% more" in keep_parity(learner)
    before = content(learner)
    assert verify(learner).notes == []
    for number, name in enumerate(name for name in sorted(before) if name.startswith("tasks/")):
        data = before[name]
        harmed = (b"", data[:-1] + bytes([data[-1] ^ 1]), data + b"x", None)[number % 4]
        (learner / name).unlink() if harmed is None else (learner / name).write_bytes(harmed)
        assert harmed == data or name in faults(learner)
        assert harmed == data or f"{name}, of the parity" in repair(learner).repaired
        assert content(learner) == before


def test_two_lost_files_are_beyond_a_parity_and_a_newer_task_makes_it_stale(learner: Path) -> None:
    keep_parity(learner)
    for name in ("01-colors", "02-moods"):
        os.replace(learner / "tasks" / name / "adapter_model.safetensors", learner.parent / name)
    assert len(repair(learner).problems) == 2
    for name in ("01-colors", "02-moods"):
        os.replace(learner.parent / name, learner / "tasks" / name / "adapter_model.safetensors")
    learn(learner, task("sizes", "big", "small"), progress=Progress())
    assert verify(learner).state == "sound"
    assert "stale" in verify(learner).notes[0]
    keep_parity(learner)
    assert verify(learner).notes == []
    (learner / PARITY).write_bytes((learner / PARITY).read_bytes()[:-1])
    assert faults(learner) == [PARITY]


def test_a_parity_is_written_if_it_takes_no_more_than_it_may(
    learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of two tasks is as long as the longest file, and so takes much more than a hundredth of the folder."""
    assert run_command(["verify", "--parity", "1%", str(learner)]) == ConfigError.status
    assert "% more, and 1 % are allowed" in capsys.readouterr().err
    assert not (learner / "PARITY").exists()
    for words in (["--parity=90"], ["--parity", "90%"], ["--parity"]):
        assert run_command(["verify", *words, str(learner)]) == 0
        assert (learner / "PARITY").is_file()
        (learner / "PARITY").unlink()
    assert run_command(["verify", "--parity=much", str(learner)]) == ConfigError.status
    assert "a share of the folder such as 5%, not 'much'" in capsys.readouterr().err


def test_no_file_is_read_when_the_time_is_up(learner: Path) -> None:
    (learner / "tasks/01-colors/adapter_model.safetensors").write_bytes(b"x")
    found = verify(learner, "data", seconds=0.0)
    assert "tasks/01-colors/adapter_model.safetensors" in found.unseen
    assert "tensors of tasks/01-colors/adapter_model.safetensors" in found.unseen
    assert found.problems == []


def test_the_command_says_it_and_its_status_is_that_of_the_folder(
    learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["verify", str(learner)]) == 0
    assert "is sound: 2 tasks" in capsys.readouterr().out
    (learner / "README.md").unlink()
    assert run_command(["verify", str(learner), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], [problem["file"] for problem in found["problems"]]) == ("damaged", ["README.md"])
    assert run_command(["verify", str(learner), "--repair", "--parity"]) == 0
    assert "repaired: README.md" in capsys.readouterr().out
    assert run_command(["verify", str(learner), "--quick", "--data"]) == 2
    assert run_command(["verify", str(learner.parent)]) == 2


# --- states that a process leaves ------------------------------------------------------------------------------------


def test_a_commit_that_is_a_folder_is_one_line(learner: Path) -> None:
    (learner / "tasks/02-moods" / COMMIT).unlink()
    (learner / "tasks/02-moods" / COMMIT).mkdir()
    assert "tasks/02-moods/COMMIT" in faults(learner)
    with pytest.raises(FolderError, match="COMMIT"):
        ask(learner, ["a"])


@pytest.mark.parametrize("left", [[], ["tasks"], ["MANIFEST"], ["tasks", "MANIFEST", ".run.yaml.part"]], ids=str)
def test_a_folder_of_the_first_moment_is_taken(tmp_path: Path, left: list[str]) -> None:
    made, path = tmp_path / "made", tmp_path / "learner"
    create(made, SETTINGS)
    path.mkdir()
    for name in left:
        if name == "tasks":
            (path / name).mkdir()
        else:
            shutil.copy(made / name.removesuffix(".part").lstrip("."), path / name)
    assert inspect(path).problems == []
    create(path, SETTINGS)
    assert verify(path).state == "sound"


def test_a_folder_that_cannot_be_written_is_asked_and_not_taught(
    learner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(learner)

    def read_only(place: Any, *rest: Any) -> None:
        raise OSError(30, "Read-only file system", str(place))

    for name in ("mkdir", "unlink", "replace"):
        monkeypatch.setattr(os, name, read_only)
    assert len(ask(learner, ["a red row"])) == 1
    with pytest.raises(FolderError, match="Read-only file system"):
        load_learner(learner)
    assert content(learner) == before


def test_errors_of_a_disk_are_one_line_and_others_keep_their_traceback(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(FolderError, match="No space left"), explained(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(FolderError, match="what was committed is intact"), explained(tmp_path):
        raise OSError(28, "No space left on device", "x")
    with pytest.raises(ConnectionRefusedError), explained(tmp_path):
        raise ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(ValueError, match="a fault of ours"), explained(tmp_path):
        raise ValueError("a fault of ours")


def test_files_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "learner"
    before = os.umask(0o027)
    try:
        create(path, SETTINGS)
        learn(path, task("colors", "red", "blue"), progress=Progress())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
        assert os.umask(0o027) == 0o027, "it is what it was"
    finally:
        os.umask(before)
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o640 and name != ".lock"} == {}
    file = tmp_path / "file"
    file.write_bytes(b"")
    file.chmod(0o600)
    follow_umask(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_command_are_one_line(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # a run that was started with nohup ignores some

    @interruptible("all is well")
    def command() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    with pytest.raises(Interrupted, match="interrupted; all is well") as caught:
        command()
    assert caught.value.status == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL
    signal.signal(number, before)


@pytest.mark.full  # tests/torture kills processes every day
def test_a_process_that_is_ended_leaves_a_learner_that_goes_on(learner: Path, tmp_path: Path) -> None:
    rows = [{"text": f"a {label} row {k}", "label": label} for k in range(4) for label in ("big", "small")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["learn", str(learner), "--name", "sizes", "--data", str(tmp_path / "rows.jsonl"), "--max-steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "everlora", *words, "--quiet"], stderr=subprocess.PIPE, text=True
    )
    while not (learner / ".owner.json").is_file() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    # With a checkpoint, if training had begun.
    assert re.fullmatch(
        r"everlora: interrupted; (a checkpoint of step \d+ was written; )?what is committed stands, .*",
        said.strip().splitlines()[-1],
    )
    assert not (learner / ".owner.json").exists()
    assert inspect(learner).problems == []


# --- what is known of the base model ---------------------------------------------------------------------------------


def test_a_learner_without_what_is_known_of_its_base_is_refused(learner: Path) -> None:
    sealing.edit(learner / "environment.json", lambda content: content.pop("base_files"))
    with pytest.raises(FolderError, match=r"does not say which base model .* --repair"):
        load_learner(learner, read_only=True)
    (learner / "environment.json").unlink()
    with pytest.raises(FolderError, match=r"is missing, or does not say which base model .* --repair"):
        load_learner(learner, read_only=True)
    assert repair(learner).state == "sound"
    assert torch.is_tensor(next(load_learner(learner).base.model.parameters()))


def test_a_model_that_no_file_holds_is_known_by_weights_and_tokenizer(learner: Path) -> None:
    files = everlora.load("tiny-llama").files
    assert files is not None
    assert set(files.record().digests) == {"the tensors of the model", "what makes its input"}
