"""The benchmark for GPUs: each of its parts on a CPU with tiny sizes, so that it runs where there is one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module
    spec.loader.exec_module(module)
    return module


def small(gpu: ModuleType, family: str) -> object:
    """A model of the same architecture that takes a moment."""
    sizes = {
        "tiny-t5": lambda: gpu.t5(vocab_size=700, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4),
        "tiny-llama": lambda: gpu.llama(
            vocab_size=700, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2,
        ),
    }  # fmt: skip
    return gpu.Size(family, sizes[family], ((2, 18, 20),), rows=3, longest=16)


@pytest.mark.parametrize("family", ["tiny-t5", "tiny-llama"])
def test_all_parts_run(gpu: ModuleType, family: str) -> None:
    rows = list(gpu.measure(small(gpu, family), CPU, ["training", "penalty", "kernel"], 1, 2))
    assert [row["part"] for row in rows].count("training") == 5
    assert {(row["method"], row["way"]) for row in rows if row["part"] == "penalty"} == {
        (method, way) for method in ("ella", "ps-lora", "n-lora") for way in ("off", "auto", "factors")
    }
    by_itself = [row for row in rows if row["part"] == "kernel"]
    assert {row["form"] for row in by_itself} == {"energy", "sign"}
    assert all(row["error"] < 1e-5 and row["times_bytes"] > 0 for row in by_itself)
    assert all(row["seconds"] > 0 and gpu.line(row) for row in rows)


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--results", str(tmp_path / "gpu.jsonl")])
    assert capsys.readouterr().out == "not measured: no GPU\n"
    assert not (tmp_path / "gpu.jsonl").exists()


def test_the_sizes_are_those_of_the_models(gpu: ModuleType) -> None:
    """Adapted matrices as they are named in the table, counted on models without numbers."""
    for name, endings in (("t5-large", ("q", "v")), ("llama-1b", ("q_proj", "v_proj"))):
        with torch.device("meta"):
            model = gpu.SIZES[name].make()
        shapes = [tuple(m.weight.shape) for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in endings]
        assert sorted(shapes) == sorted((o, i) for count, o, i in gpu.SIZES[name].matrices for _ in range(count))
