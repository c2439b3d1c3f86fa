"""A base model whose files changed since a run learned on it is refused, by name of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import everlora
import tiny_runs
from everlora.archive.records import BaseFilesRecord, Environment
from everlora.archive.schema import read_json
from everlora.cli.app import run_command
from everlora.core.errors import FolderError
from everlora.models.base_files import BaseFiles, check_same_base
from sealing import edit

TRAIN = {"max_steps": 2, "per_device_train_batch_size": 2}


def written(folder: Path, template: str | None = "{{ messages[0]['content'] }}") -> Path:
    base = everlora.load("tiny-llama")
    base.model.save_pretrained(folder)
    base.family.processor.chat_template = template
    base.family.processor.save_pretrained(str(folder))
    return folder


def other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: t + 0.01 for name, t in load_file(path).items()}, path, metadata={"format": "pt"})


def other_entry(file: str, **entries: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (other_weights, "model.safetensors is another"),
    "config": (other_entry("config.json", rms_norm_eps=0.1), "config.json is another"),
    "tokenizer": (other_entry("tokenizer_config.json", add_bos_token=True), "tokenizer_config.json is another"),
    "template": (lambda folder: (folder / "chat_template.jinja").write_text("x"), "chat_template.jinja is another"),
    "no template": (lambda folder: (folder / "chat_template.jinja").unlink(), "chat_template.jinja is gone"),
    "more tokens": (lambda folder: (folder / "added_tokens.json").write_text("{}"), "added_tokens.json was not there"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_file_is_named(what: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "base")
    there = BaseFiles.at(folder).record()
    check_same_base(tmp_path, "base", there, BaseFiles.at(folder))
    change, words = CHANGES[what]
    change(folder)
    with pytest.raises(FolderError) as refused:
        check_same_base(tmp_path, "base", there, BaseFiles.at(folder))
    assert words in str(refused.value)
    assert "bring back the files of then" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_changes_nothing_is_not_looked_at(tmp_path: Path) -> None:
    folder = written(tmp_path / "base")
    there = BaseFiles.at(folder).record()
    (folder / "README.md").write_text("more")
    (folder / "trainer_state.json").write_text("{}")
    check_same_base(tmp_path, "base", there, BaseFiles.at(folder))


def test_a_commit_of_the_hub_is_what_a_user_is_sent_back_to(tmp_path: Path) -> None:
    there = BaseFilesRecord(digests={"config.json": "a"}, commit="1234")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="pass --revision 1234"):
        check_same_base(tmp_path, "base", there, BaseFiles.at(tmp_path, "5678"))
    (tmp_path / "vocab.txt").write_text("a")
    known = BaseFiles.at(tmp_path, "1234").record()
    (tmp_path / "vocab.txt").unlink()  # which this cache has not fetched
    check_same_base(tmp_path, "base", known, BaseFiles.at(tmp_path, "1234"))


def test_a_model_built_in_memory_is_known_by_its_tensors(tmp_path: Path) -> None:
    one, same = everlora.load("tiny-llama"), everlora.load("tiny-llama")
    assert one.files
    assert same.files
    check_same_base(tmp_path, "tiny-llama", one.files.record(), same.files)
    changed = {name: tensor + 1 for name, tensor in one.model.state_dict().items()}
    with pytest.raises(FolderError, match="the tensors of the model is another"):
        check_same_base(tmp_path, "tiny-llama", one.files.record(), BaseFiles.of_tensors(changed))
    assert BaseFiles.of_tensors({"a": torch.zeros(2)}) != BaseFiles.of_tensors({"b": torch.zeros(2)})


def test_resume_and_export_refuse_another_base_and_folders_without_a_record_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = written(tmp_path / "base"), tmp_path / "run"
    tasks = tiny_runs.stream("tiny-llama")

    def learner() -> everlora.Learner:
        return everlora.Learner(str(folder), method="seqlora", out=out, resume=out.exists(), train=TRAIN)

    learner().follow(tasks[:1])
    record = read_json(Environment, out / "environment.json")
    assert record.base_files is not None
    assert {"model.safetensors", "config.json"} <= record.base_files.digests.keys()
    learner()
    kept = shutil.copy(folder / "model.safetensors", tmp_path / "kept")
    other_weights(folder)
    with pytest.raises(FolderError, match=r"model\.safetensors is another"):
        learner()
    assert run_command(["export", str(out), "--out", str(tmp_path / "whole")]) != 0
    assert "model.safetensors is another" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "whole").exists()
    shutil.copy(kept, folder / "model.safetensors")
    learner()
    other_weights(folder)
    edit(out / "environment.json", lambda noted: noted.pop("base_files"), sealed=False)
    with pytest.raises(FolderError, match=r"environment\.json was changed after it was written"):
        learner()
    edit(out / "environment.json", lambda noted: None)
    learner()
