"""What was written is opened again before it counts: damage between writing and reading is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import everlora
from everlora import Example, Learner, Task, load
from everlora.adapters import files, make_backend
from everlora.archive import atomic
from everlora.core.errors import EverloraError, FolderError
from everlora.core.updates import LowRank
from everlora.export.model import check_written, spell_both_ways
from everlora.training import memory

Damage = Callable[[Path], object]


def flip(path: Path, at: int = -1) -> None:
    """Turn one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def of_another_rank(path: Path) -> None:
    """Keep the first row of every A and the first column of every B."""
    cut = {name: t[:1] if "lora_A" in name else t[:, :1] for name, t in load_file(path).items()}
    save_file({name: tensor.contiguous() for name, tensor in cut.items()}, path)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(FolderError) as caught:
        act()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def small(name: str) -> Task:
    rows = [Example(f"text {k}", "good" if k % 2 else "bad") for k in range(4)]
    return Task(name=name, train=rows, test=rows[:2], labels=("good", "bad"))


@pytest.mark.parametrize(
    ("method", "model"),
    [(one, "tiny-bert") for one in ("ella", "lb-cl", "seqft", "sd-lora", "osf", "data", "l2p")]
    + [(one, "tiny-llama") for one in ("ella", "seqft", "progprompt")],
)
def test_a_damaged_file_of_a_task_is_noticed(method: str, model: str, tmp_path: Path) -> None:
    base = load(model)
    base.family.prepare(base.model, [small("a")], torch.Generator().manual_seed(0))
    backend = make_backend(base, {"r": 2}, "auto", everlora.parse(method).adapter)
    backend.plan_tasks(1)
    backend.attach(seed=0, tasks=[small("a")])
    update, whole = backend.extract(), tmp_path / "whole"
    whole.mkdir()
    backend.save(whole)
    backend.check_saved(whole, update)
    damages: list[Damage] = [flip, lambda file: flip(file, 8), Path.unlink, lambda file: file.write_bytes(b"")]
    for file in whole.glob("*.safetensors"):
        for number, damage in enumerate(damages):
            folder = tmp_path / f"{file.stem}-{number}"
            shutil.copytree(whole, folder)
            damage(folder / file.name)
            refused(lambda folder=folder: backend.check_saved(folder, update))  # type: ignore[misc]
        for name in [name for name in load_file(file) if "classifier" in name]:
            folder = tmp_path / f"{file.stem}-{name}"
            shutil.copytree(whole, folder)
            tensors = load_file(file)
            tensors[name] += 1
            save_file(tensors, folder / file.name, metadata={"format": "pt"})
            assert "'the head' reads back" in refused(lambda folder=folder: backend.check_saved(folder, update))  # type: ignore[misc]


@pytest.mark.parametrize("damage", [flip, lambda path: flip(path, 8), Path.unlink, of_another_rank])
def test_a_damaged_adapter_is_noticed_by_its_writer(
    damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = LowRank(torch.randn(3, 5), torch.randn(4, 3), 1.0)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_modules": ["q"]}))
    head = {"classifier.weight": torch.randn(2, 4)}
    files.write(tmp_path, {"q": site}, head, like=tmp_path)

    real = files.save_file

    def faulty(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        real(tensors, path, metadata=metadata)
        damage(path)

    monkeypatch.setattr(files, "save_file", faulty)
    assert str(tmp_path) in refused(lambda: files.write(tmp_path, {"q": site}, head, like=tmp_path))


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"peft_type": "LORA", "lora_alpha": 4, "r": 0}', "\x00"])
def test_a_damaged_configuration_of_an_adapter_is_one_line(config: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_modules": ["q"]}))
    files.write(tmp_path, {"q": LowRank(torch.randn(3, 5), torch.randn(4, 3), 1.0)}, {}, like=tmp_path)
    (tmp_path / "adapter_config.json").write_text(config)
    assert str(tmp_path) in refused(lambda: files.read(tmp_path))


def change_json(name: str, **changes: object) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return damage


MODEL_DAMAGE: dict[str, Damage] = {
    "a bit of the weights": lambda folder: flip(folder / "model.safetensors"),
    "a bit of their header": lambda folder: flip(folder / "model.safetensors", 8),
    "half of the weights": lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "another number": change_json("config.json", rms_norm_eps=0.5),
    "another kind": change_json("config.json", model_type="zorglub"),
    "another end": change_json("generation_config.json", eos_token_id=7),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "half a tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("name", MODEL_DAMAGE)
def test_a_damaged_export_is_noticed(name: str, tmp_path: Path) -> None:
    base = load("tiny-llama")
    base.model.save_pretrained(tmp_path)
    base.family.processor.save_pretrained(str(tmp_path))
    spell_both_ways(tmp_path)
    check_written(base.model, base.family.processor, tmp_path)
    MODEL_DAMAGE[name](tmp_path)
    assert str(tmp_path) in refused(lambda: check_written(base.model, base.family.processor, tmp_path))


def test_a_damaged_memory_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = {"part": {"q": {"odd": torch.tensor([float("nan"), 1.0]), "count": torch.tensor(3)}}}
    memory.write(tmp_path, remembered)

    def faulty(tensors: dict[str, Any], path: Path) -> None:
        save_file(tensors, path)
        flip(path)

    monkeypatch.setattr(memory, "save_file", faulty)
    assert "reads back as something else" in refused(lambda: memory.write(tmp_path, remembered))


def test_a_task_that_is_damaged_on_its_way_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.copyfile

    def faulty(source: Path, target: Path) -> None:
        real(source, target)
        if target.suffix == ".safetensors":
            flip(target)

    learner = Learner("tiny-llama", out=tmp_path / "run", method="seqlora", train={"max_steps": 1})
    with monkeypatch.context() as broken:
        broken.setattr(atomic.shutil, "copyfile", faulty)
        with pytest.raises(EverloraError, match="was not written as it was to be"):
            learner.follow([small("a")])
    assert not list((tmp_path / "run" / "tasks").iterdir()), "nothing of the task stays"
    again = Learner("tiny-llama", out=tmp_path / "run", method="seqlora", train={"max_steps": 1})
    assert again.follow([small("a")])
    flip(next((tmp_path / "run" / "tasks").glob("*/adapter_model.safetensors")))
    with pytest.raises(FolderError, match="missing or was changed after it was written"):
        everlora.Learner("tiny-llama", out=tmp_path / "run", method="seqlora", train={"max_steps": 1}, resume=True)
