"""A file that is written tensor by tensor is the one that safetensors writes, and holds one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as library
from torch import Tensor

from everlora.adapters import files
from everlora.adapters.streamed import MadeTensors, save_file
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, concatenate

OF_ALL_KINDS = {
    "b.weight": torch.arange(6.0).reshape(2, 3),
    "a.weight": torch.randn(3, 1).bfloat16(),
    "a.wide": torch.randn(2).double(),
    "größe": torch.ones(5, dtype=torch.int64),
    "half": torch.randn(3).half(),
    "scalar": torch.tensor(2.0),
    "empty": torch.zeros(0, 4),
}


@pytest.mark.parametrize("names", [list(OF_ALL_KINDS), ["b.weight"], ["scalar", "a.weight"]])
def test_a_file_is_byte_for_byte_that_of_the_library(names: list[str], tmp_path: Path) -> None:
    tensors = {name: OF_ALL_KINDS[name] for name in names}
    library(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    save_file(tensors, tmp_path / "ours", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert all(torch.equal(tensor, load_file(tmp_path / "ours")[name]) for name, tensor in tensors.items())


def test_a_transposed_tensor_is_written_as_it_reads(tmp_path: Path) -> None:
    save_file({"t": OF_ALL_KINDS["b.weight"].T}, tmp_path / "ours", {})
    assert torch.equal(load_file(tmp_path / "ours")["t"], OF_ALL_KINDS["b.weight"].T)


def past_of(tasks: int, draws: torch.Generator) -> UpdateHistory:
    def update(rank: int) -> dict[str, LowRank]:
        return {
            name: LowRank(torch.randn(rank, 5, generator=draws), torch.randn(4, rank, generator=draws), 0.7)
            for name in ("q", "k", "v")
        }

    return UpdateHistory(tuple(update(2 + number % 2) for number in range(tasks)))


def test_a_long_past_is_joined_to_the_same_bits_as_by_stacks() -> None:
    past = past_of(5, torch.Generator().manual_seed(0))
    lazily = past.stacked(["v", "q"])
    assert [one.rank for one in lazily] == [2, 3, 2, 3, 2]
    joined, stacked = lazily.joined(), concatenate(list(lazily))  # type: ignore[attr-defined]
    assert torch.equal(joined.A, stacked.A)
    assert torch.equal(joined.B, stacked.B)
    assert joined.A.stride() == stacked.A.stride()
    assert joined.B.stride() == stacked.B.stride()
    assert len(lazily[1:3]) == 2


def test_of_a_long_past_one_module_at_a_time_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    past = past_of(4, torch.Generator().manual_seed(1))
    sites, _ = files.merge_past(past, None)
    alive: list[Tensor] = []
    real = MadeTensors.__getitem__

    def watched(self: MadeTensors, name: str) -> Tensor:
        alive.append(found := real(self, name))
        return found

    monkeypatch.setattr(MadeTensors, "__getitem__", watched)
    (tmp_path / "adapter_config.json").write_text('{"target_modules": ["q", "k", "v"]}')
    files.write(tmp_path, sites, {}, like=tmp_path)
    assert len({one.data_ptr() for one in alive}) > 6, "all of them were held at once"
    written, _ = files.read(tmp_path)
    for name in past.sites:
        assert torch.equal(written[name].dense(), past.factors(name).dense())
