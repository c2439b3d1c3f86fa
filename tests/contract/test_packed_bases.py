"""Bases of fewer bits: what was learned stands beside them as exact factors, and goes with no other base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from everlora import Example, Learner, Task, load
from everlora.adapters import files as adapters
from everlora.adapters import make_backend
from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError, FolderError, ModelError
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.models.loading import Loaded
from everlora.models.names import PACKAGED
from everlora.models.packing import possible
from everlora.runtime.precision import Precision

STEPS: dict[str, Any] = {"max_steps": 4, "learning_rate": 0.02}


@pytest.fixture
def torchao() -> None:
    pytest.importorskip("torchao", reason="packs into 8 bits: pip install torchao")


def words(name: str, *labels: str) -> Task:
    rows = [Example(f"{label} {label} {n}", label) for n in range(8) for label in labels]
    return Task(name=name, train=rows[: 6 * len(labels)], test=rows[6 * len(labels) :], labels=labels)


def differences(base: Loaded, past: str) -> list[float]:
    """How far the outputs of adapted layers are off from what the updates of two tasks add, as a share of that."""
    backend = make_backend(base, {"r": 4}, past, Adapter())  # type: ignore[arg-type]
    backend.attach(seed=0)
    draws, layers = torch.Generator().manual_seed(1), backend.base_layers()
    names = list(layers)[:2] + list(layers)[-1:]
    updates = [
        {
            name: LowRank(
                torch.randn(4, layers[name].in_features, generator=draws) / 30,  # type: ignore[call-overload]
                torch.randn(layers[name].out_features, 4, generator=draws) / 30,  # type: ignore[call-overload]
                scale=2.0,
            )
            for name in layers
        }
        for _ in range(2)
    ]
    inputs = {name: torch.randn(5, layers[name].in_features, generator=draws) for name in names}  # type: ignore[call-overload]
    with torch.no_grad():
        before = {name: layers[name](inputs[name]) for name in names}
        backend.set_past(UpdateHistory((updates[0], updates[1])))
        after = {name: layers[name](inputs[name]) for name in names}
    found = []
    for name in names:
        added = inputs[name].double() @ sum(update[name].dense().double() for update in updates).mT  # type: ignore[union-attr]
        error = (after[name].double() - before[name].double() - added).abs().max()
        found.append(float(error / after[name].abs().max()))
    return found


@pytest.mark.parametrize("past", ["auto", "factors"])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5", "tiny-bert"])
def test_the_past_is_exact_on_plain_weights(model: str, past: str) -> None:
    assert max(differences(load(model), past)) < 1e-6


@pytest.mark.weights
@pytest.mark.parametrize("past", ["auto", "factors"])
def test_the_past_is_exact_on_weights_of_a_gguf_file(past: str) -> None:
    assert str(PACKAGED["smollm2-135m"].path()).endswith(".gguf")
    assert max(differences(load("smollm2-135m", dtype="float32"), past)) < 1e-6


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5", "tiny-bert"])
def test_the_past_is_exact_on_weights_of_8_bits(model: str, torchao: None) -> None:
    base = load(model, dtype="int8")
    assert base.precision.describe()["weights"] == "int8"
    assert max(differences(base, "auto")) < 1e-6
    with pytest.raises(ModelError, match="cannot be folded into them; use past=factors"):
        differences(base, "fold")


def test_a_learner_on_8_bits_goes_on_answers_and_says_so(tmp_path: Path, torchao: None) -> None:
    place = tmp_path / "learner"
    learner = Learner("tiny-llama", method="ella", out=place, dtype="int8", lora={"r": 4})
    for name in ("first", "second"):
        learner.learn(words(name, f"{name}a", f"{name}b"), keep_probe=4, train=STEPS)
    again = Learner.open(place)
    assert again.evaluate().scores == learner.evaluate().scores
    assert again._learner.base.precision.packing == "int8"
    newest = again._learner.folder.stages()[-1].facts.fingerprint
    assert newest is not None
    assert str(newest.plain()["quantization"]).startswith("torchao")
    # The root adapter is the sum of the tasks', whatever the base.
    root = adapters.read(place)[0]
    tasks = [adapters.read(stage.path)[0] for stage in again._learner.folder.stages()]
    for name, update in root.items():
        total = tasks[0][name].dense() + tasks[1][name].dense()
        assert torch.allclose(update.dense(), total, rtol=0, atol=1e-6 * float(total.abs().max()))
    assert "packed by torchao into 8 bits" in (place / "README.md").read_text(encoding="utf-8")
    assert again.verify("data").state == "sound"
    assert "packed as int8" in again.verify("logits").notes[0]
    with pytest.raises(ConfigError, match="quantised weights, into which nothing can be folded"):
        again.export(tmp_path / "merged")
    again.export(tmp_path / "peft", to="peft")
    assert "packed by torchao into 8 bits" in (tmp_path / "peft" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(FolderError, match="different: dtype"):
        Learner("tiny-llama", method="ella", out=place, dtype="float32", lora={"r": 4}, resume=True)


def test_stock_libraries_pack_the_same_weights_by_the_line_on_the_card(tmp_path: Path, torchao: None) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    load("tiny-llama").model.save_pretrained(str(tmp_path))
    packed = TorchAoConfig(Int8WeightOnlyConfig())
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32", quantization_config=packed)
    rows = torch.arange(5, 17)[None]
    ours, plain = load("tiny-llama", dtype="int8").model(rows).logits, load("tiny-llama").model(rows).logits
    assert torch.equal(stock(rows).logits, ours)
    assert not torch.allclose(plain, ours, atol=1e-4), "it packs nothing"


def test_a_packing_that_cannot_be_made_here_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--dtype nf4 needs a GPU.*take --dtype int8"):
        load("tiny-llama", dtype="nf4", device="cpu")
    monkeypatch.setattr("everlora.models.packing.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--dtype int8 needs torchao; install it: pip install torchao"):
        load("tiny-llama", dtype="int8")
    with pytest.raises(ConfigError, match="--dtype nf4 needs bitsandbytes"):
        possible(Precision(weights=torch.bfloat16, device=torch.device("cuda"), packing="nf4"))
    with pytest.raises(ConfigError, match=r"unknown dtype 'int-8'.*int8"):
        load("tiny-llama", dtype="int-8")
