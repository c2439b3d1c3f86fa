"""A GGUF file is unpacked once, and what was unpacked counts only while every byte of it is as it was written."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlora import load
from everlora.models import gguf_cache
from everlora.models.gguf_cache import DIGESTS, PLACE, Unpacked
from everlora.models.names import PACKAGED

BF16 = torch.bfloat16


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))
    path = tmp_path / "models" / "small.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF of a model")
    return path


def unpack(file: Path) -> Unpacked:
    base = load("tiny-llama", dtype="float32")
    one = Unpacked.of(file, torch.float32)
    assert not one.is_whole()
    one.finish(base.model, base.family.processor)
    return one


def test_what_was_unpacked_is_found_again_bit_for_bit(file: Path) -> None:
    written = unpack(file)
    again = Unpacked.of(file, torch.float32)
    assert again.folder == written.folder
    assert again.is_whole()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(again.folder), AutoTokenizer.from_pretrained(again.folder)
    again.finish(model, tokenizer)
    base = load("tiny-llama", dtype="float32")
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert tokenizer.backend_tokenizer.to_str() == base.family.processor.backend_tokenizer.to_str()
    assert model.name_or_path == model.config._name_or_path == tokenizer.name_or_path == str(file.parent)


def test_another_file_dtype_or_template_is_unpacked_by_itself(file: Path) -> None:
    one = Unpacked.of(file, BF16).folder
    assert one != Unpacked.of(file, torch.float32).folder
    (file.parent / "chat_template.jinja").write_text("{{ messages }}")
    other = Unpacked.of(file, BF16).folder
    assert other != one
    file.write_bytes(b"GGUF of a model that is another")
    assert Unpacked.of(file, BF16).folder not in (one, other)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", DIGESTS])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_what_is_damaged_does_not_count_and_is_written_again(name: str, damage: str, file: Path) -> None:
    folder = unpack(file).folder
    assert folder is not None
    target = folder / name
    content = target.read_bytes()
    if damage == "flip":
        half = len(content) // 2
        target.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    elif damage == "cut":
        target.write_bytes(content[:-1])
    else:
        target.unlink()
    assert not Unpacked.of(file, torch.float32).is_whole()
    unpack(file)
    assert Unpacked.of(file, torch.float32).is_whole()


def test_nothing_is_written_where_caches_are_switched_off_or_nothing_can_be_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is wanted")
    assert not (one := unpack(file)).is_whole()
    assert one.folder is not None
    monkeypatch.setenv(PLACE, "")
    assert Unpacked.of(file, BF16).folder is None
    assert Unpacked.of(tmp_path / "model.safetensors", BF16).folder is None
    assert (tmp_path / "cache").read_text() == "a file, where a folder is wanted"


def test_what_a_faster_process_wrote_stays(file: Path) -> None:
    slow = Unpacked.of(file, torch.float32)
    assert not slow.is_whole()
    fast = unpack(file)
    assert fast.folder is not None
    before = (fast.folder / DIGESTS).stat().st_ino
    base = load("tiny-llama", dtype="float32")
    slow.finish(base.model, base.family.processor)
    assert (fast.folder / DIGESTS).stat().st_ino == before
    assert [path.name for path in fast.folder.parent.iterdir()] == [fast.folder.name]


def test_without_a_home_or_the_library_nothing_is_stored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gguf_cache, "version", missing)
    assert Unpacked.of(file, BF16).folder is None
    monkeypatch.undo()

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert Unpacked.of(file, BF16).folder is None


@pytest.mark.weights
@pytest.mark.full
def test_the_packaged_weights_are_the_same_from_the_file_and_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    first, second = load("smollm2-135m"), load("smollm2-135m")
    assert Unpacked.of(Path(PACKAGED["smollm2-135m"].path()), first.precision.weights).is_whole()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert first.model.config.to_dict() == second.model.config.to_dict()
    assert first.family.prompter.date == second.family.prompter.date
