"""Hidden states of frozen parts in a folder: what is read is bit for bit what would have been computed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_frozen_layers import adapted, batch_of
from transformers import PretrainedConfig

from everlora import EverloraError, load, parse
from everlora.learner import experiment
from everlora.models.families.feature_cache import FeatureCache, digest_of_part, key_of, size
from everlora.models.families.frozen import FrozenLayers
from everlora.models.families.frozen_encoder import FrozenEncoder, find_frozen
from everlora.runtime.progress import Progress
from everlora.settings.spec import RunSpec


def cache(folder: Path, limit: int = 2**20) -> tuple[FeatureCache, list[str]]:
    lines: list[str] = []
    return FeatureCache(folder, lines.append, limit), lines


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    states[0, 0, 0] = torch.nan
    one, lines = cache(tmp_path / "features")
    assert one.get("key") is None
    one.put("key", states)
    found = cache(tmp_path / "features")[0].get("key")
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), states.view(torch.uint8))
    assert lines == []


def test_damage_is_noticed_and_mended(tmp_path: Path) -> None:
    one, lines = cache(tmp_path)
    states = torch.ones(4, 4)
    for damage in (lambda b: b[:-20], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"\0" * len(b)):
        one.put("key", states)
        path = next(tmp_path.glob("*.safetensors"))
        path.write_bytes(damage(path.read_bytes()))
        assert one.get("key") is None
        one.put("key", states)
        assert torch.equal(one.get("key"), states)  # type: ignore[arg-type]
    assert len(lines) == 1
    assert "is damaged; what it should hold is computed again" in lines[0]


@pytest.mark.parametrize(
    "digest", [torch.tensor(2**62), torch.full((32,), 0.5), torch.zeros(32, dtype=torch.int64), torch.zeros(0)]
)
def test_a_digest_of_another_kind_is_damage(digest: torch.Tensor, tmp_path: Path) -> None:
    """And neither a fault nor a wish for as much memory as a number says."""
    said: list[str] = []
    cache = FeatureCache(tmp_path / "cache", warn=said.append)
    cache.put("key", torch.ones(2))
    (path,) = (tmp_path / "cache").glob("*.safetensors")
    save_file({"states": torch.ones(2), "digest": digest}, path)
    assert cache.get("key") is None
    assert said == [f"{path} is damaged; what it should hold is computed again"]


def test_a_place_that_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    one, lines = cache(tmp_path / "file")
    assert one.get("key") is None
    one.put("key", torch.ones(4))
    assert len(lines) == 1
    assert "cannot be written" in lines[0]


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(EverloraError, match="needs the name of a folder, or off"):
        experiment.resolve(RunSpec, {"model": "tiny-llama", "method": "ella"}, {"feature_cache": name}, {})


def test_the_folders_of_run_and_model_hold_no_cache(tmp_path: Path) -> None:
    spec = RunSpec(model="tiny-llama", method="seqlora", feature_cache=str(tmp_path / "run" / ".." / "run"))
    with pytest.raises(EverloraError, match="is the folder of the run or of the model"):
        experiment.begin(spec, parse("seqlora"), load("tiny-llama"), tmp_path / "run", progress=Progress())


def test_a_file_under_the_name_of_another_counts_as_damaged(tmp_path: Path) -> None:
    one, lines = cache(tmp_path)
    one.put("key", torch.ones(4))
    next(tmp_path.glob("*.safetensors")).rename(tmp_path / "other.safetensors")
    assert one.get("other") is None
    assert len(lines) == 1


def test_a_full_folder_is_said_once_and_read_on(tmp_path: Path) -> None:
    one, lines = cache(tmp_path, limit=3000)
    for k in range(6):
        one.put(f"key{k}", torch.full((256,), float(k)))  # a kibibyte, and its header
    assert len(lines) == 1
    assert "holds its limit" in lines[0]
    assert "results are the same" in lines[0]
    assert size(tmp_path) <= 3000
    first = one.get("key0")
    assert first is not None
    assert first[0] == 0


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    one, lines = cache(tmp_path / "file" / "features")
    for k in range(3):
        one.put(f"key{k}", torch.ones(3))
        assert one.get(f"key{k}") is None
    assert sum("cannot be written" in line for line in lines) == 1
    assert len(lines) <= 2


def test_two_writers_of_one_key_leave_one_whole_file(tmp_path: Path) -> None:
    states = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    writers = [cache(tmp_path)[0] for _ in range(4)]
    threads = [threading.Thread(target=lambda w=w: [w.put("key", states) for _ in range(20)]) for w in writers]
    for thread in threads:
        thread.start()
    for _ in range(50):
        found = writers[0].get("key")
        assert found is None or torch.equal(found, states)
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]


def test_the_key_knows_weights_rows_padding_and_threads() -> None:
    inputs = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.tensor([[1, 1]])}
    known = key_of("part", inputs)
    assert key_of("part", dict(reversed(inputs.items()))) == known
    others = [
        key_of("other", inputs),
        key_of("part", inputs | {"input_ids": torch.tensor([[1, 3]])}),
        key_of("part", inputs | {"attention_mask": torch.tensor([[1, 0]])}),
        key_of("part", {"input_ids": torch.tensor([[1], [2]]), "attention_mask": torch.tensor([[1], [1]])}),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        others.append(key_of("part", inputs))
    assert len({known, *others}) == 6
    weights = [("w", torch.zeros(2))]
    one, other = PretrainedConfig(eps=1, id2label={0: "a"}), PretrainedConfig(eps=2, id2label={0: "a"})
    part = digest_of_part(weights, one)
    assert digest_of_part(weights, PretrainedConfig(eps=1, id2label={0: "b"})) == part
    assert digest_of_part(weights, other) != part
    assert digest_of_part([("w", torch.ones(2))], one) != part
    assert digest_of_part([("w", torch.zeros(2).bfloat16())], one) != part


@pytest.mark.parametrize(("model", "layers"), [("tiny-bert", "top:1"), ("tiny-t5", "decoder")])
def test_another_model_object_reads_what_one_has_computed(model: str, layers: str, tmp_path: Path) -> None:
    computed: list[int] = []
    for _ in range(2):
        base, wrapped, _ = adapted(model, layers)
        part = FrozenEncoder.of(wrapped, ()) if model == "tiny-t5" else FrozenLayers("bert.encoder.layer", 1)
        assert part is not None
        part.disk = cache(tmp_path)[0]
        compute = part._compute
        part._compute = lambda m, i, c=compute: (computed.append(len(i["input_ids"])), c(m, i))[1]  # type: ignore
        wrapped.train()
        part.hidden(wrapped, batch_of(base, slice(0, 4)))
        wrapped.eval()
        part.hidden(wrapped, batch_of(base, slice(0, 5)))
    assert computed == [4, 5]
    with torch.no_grad():  # other weights in the frozen part are another key
        next(part.tensors(wrapped))[1].add_(1)
    part._digest = None
    part.begin_task()
    wrapped.train()
    part.hidden(wrapped, batch_of(base, slice(0, 4)))
    assert computed == [4, 5, 4]


def test_weights_above_the_cut_are_no_part_of_the_key() -> None:
    _, wrapped, frozen = adapted("tiny-bert")
    assert frozen is not None
    names = [name for name, _ in frozen.tensors(wrapped)]
    assert any("layer.0" in name for name in names)
    assert any("embeddings" in name for name in names)
    assert not any("layer.1" in name or "classifier" in name or "lora" in name for name in names)


def test_an_encoder_is_found_where_the_decoder_alone_is_adapted() -> None:
    _, wrapped, _ = adapted("tiny-t5", "decoder")
    inside = ["decoder.block.0.layer.0.SelfAttention.q"]
    assert isinstance(find_frozen(wrapped, inside, by_layers=True), FrozenEncoder)
    unnamed = find_frozen(wrapped, inside, by_layers=False)
    assert unnamed is not None
    assert not unnamed.learns
    both = [*inside, "encoder.block.0.layer.0.SelfAttention.q"]
    assert find_frozen(wrapped, both, by_layers=True) is None
