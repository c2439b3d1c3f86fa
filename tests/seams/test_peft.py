"""What we rely on in PEFT."""

from __future__ import annotations

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer

import tiny_runs
from everlora.adapters import files as adapters
from everlora.adapters.lora import LoraBackend, _site
from everlora.core.adapter import Adapter
from tiny_runs import MODELS


@pytest.mark.parametrize("model", MODELS)
def test_unload_gives_back_the_very_modules(model):
    """Hooks and folded weights live on them, so identity matters, not equality."""
    loaded = tiny_runs.fresh(model)
    loaded.family.prepare(loaded.model, [tiny_runs.stream(model)[0]], torch.Generator().manual_seed(0))
    before = dict(loaded.model.named_modules())
    backend = LoraBackend(loaded, {"r": 4, "lora_alpha": 8})
    for _ in range(2):
        backend.attach(seed=0)
        backend.detach()
    after = dict(loaded.model.named_modules())
    head = loaded.family.head
    assert before.keys() == after.keys()
    assert all(after[n] is m for n, m in before.items() if n != head)


def test_a_saved_adapter_has_no_card_of_pefts(tmp_path):
    backend = LoraBackend(tiny_runs.fresh("tiny-llama"), {"r": 4, "lora_alpha": 8})
    backend.attach(seed=0)
    backend.save(tmp_path / "saved")
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_unload_leaves_the_trained_head(model):
    loaded = tiny_runs.fresh(model)
    loaded.family.prepare(loaded.model, [tiny_runs.stream(model)[0]], torch.Generator().manual_seed(0))
    backend = LoraBackend(loaded, {"r": 4, "lora_alpha": 8})
    peft = backend.attach(seed=0)
    trained = {n: p for n, p in peft.named_parameters() if "modules_to_save" in n}
    assert all(p.requires_grad for p in trained.values())
    for parameter in trained.values():
        parameter.data.fill_(0.5)
    backend.detach()
    head = loaded.model.get_submodule(loaded.family.head)
    assert isinstance(head, torch.nn.Linear)
    assert (head.weight == 0.5).all()
    assert (head.bias == 0.5).all()
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_initialisation_is_kaiming_and_zero():
    """A ~ U(−1/√i, 1/√i), B = 0, drawn from our seed whatever torch's stream holds."""
    adapters = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        backend = LoraBackend(tiny_runs.fresh("tiny-llama"), {"r": 4, "lora_alpha": 8})
        backend.attach(seed=3)
        adapters.append(backend.extract())
    one, two = adapters
    for name, site in one.items():
        assert torch.equal(site.A, two[name].A)
        assert site.A.abs().max() <= site.A.shape[1] ** -0.5
        assert site.A.std() == pytest.approx((3 * site.A.shape[1]) ** -0.5, rel=0.15)
        assert (site.B == 0).all()
        assert site.scale == 2.0


def test_per_module_ranks_survive_the_round_trip(tmp_path):
    """`rank_pattern` and `alpha_pattern`, which a root adapter of uneven ranks needs."""
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2},
                        alpha_pattern={"v_proj": 2})  # fmt: skip
    model = get_peft_model(tiny_runs.fresh("tiny-llama").model, config)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_runs.fresh("tiny-llama").model, str(tmp_path))
    ranks = {n.split(".")[-4]: len(p) for n, p in again.named_parameters() if "lora_A" in n}
    assert ranks == {"q_proj": 4, "v_proj": 2}
    scales = {m.scaling["default"] for m in again.modules() if isinstance(m, LoraLayer)}
    assert scales == {1.0}


def adalora(dtype="float32", r=4, alpha=6):
    config = AdaLoraConfig(init_r=r, target_r=r, total_step=1, lora_alpha=alpha, target_modules=["q_proj", "v_proj"])
    return get_peft_model(tiny_runs.fresh("tiny-llama", dtype).model, config)


@pytest.mark.parametrize(("dtype", "trainable"), [("float32", False), ("bfloat16", True)])
def test_the_cast_of_a_bf16_base_makes_the_constant_ranknum_trainable(dtype, trainable):
    """A fault of PEFT (0.21), which the optimiser would act on; ours is a constant on either."""
    ranks = {n: p for n, p in adalora(dtype).named_parameters() if "ranknum" in n}
    assert ranks
    assert {p.requires_grad for p in ranks.values()} == {trainable}
    backend = LoraBackend(tiny_runs.fresh("tiny-llama", dtype), {"r": 4, "lora_alpha": 8}, adapter=Adapter(form="svd"))
    peft = backend.attach(seed=0)
    ours = {n: p for n, p in peft.named_parameters() if "ranknum" in n}
    assert ours.keys() == ranks.keys()
    assert not any(p.requires_grad for p in ours.values())
    trained = {n.split(".")[-2] for n, p in peft.named_parameters() if p.requires_grad}
    assert trained == {"lora_A", "lora_B", "lora_E"}


def test_adalora_stores_its_factors_under_three_names():
    """`adapters.read` looks for these; unlike LoRA's they end without ``.weight``, and ranknum is not among them."""
    model = adalora()
    keys = get_peft_model_state_dict(model).keys()
    sites = [n for n, m in model.base_model.model.named_modules() if isinstance(m, AdaLoraLayer)]
    assert keys == {f"base_model.model.{site}.lora_{factor}" for site in sites for factor in "ABE"}


@pytest.mark.parametrize("alpha", [4, 6])
def test_adalora_adds_b_times_diag_e_times_a(alpha, tmp_path):
    """At the scale alpha / (r + 1e-5), in the forward pass, in our reading of the live model, and from disk."""
    model = adalora(alpha=alpha).eval()
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw)
    model.save_pretrained(tmp_path)
    stored, rest = adapters.read(tmp_path)
    assert rest == {}
    layers = {n: m for n, m in model.base_model.model.named_modules() if isinstance(m, AdaLoraLayer)}
    assert stored.keys() == layers.keys()
    for name, layer in layers.items():
        A, B, E = (getattr(layer, f"lora_{key}")["default"] for key in "ABE")
        update = alpha / (4 + 1e-5) * (B @ torch.diag(E[:, 0]) @ A)
        x = torch.randn(3, A.shape[1], generator=draw)
        torch.testing.assert_close(layer(x) - layer.base_layer(x), x @ update.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(_site(layer).dense(), update, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stored[name].dense(), update, rtol=1e-5, atol=1e-5)
        assert _site(layer).scale == stored[name].scale


def test_adalora_starts_at_nothing_with_two_small_frames():
    """U, V ~ N(0, 0.02²) and σ = 0."""
    backend = LoraBackend(
        tiny_runs.fresh("tiny-llama"), {"r": 8, "lora_alpha": 8}, adapter=Adapter(form="svd", unit=True)
    )
    backend.attach(seed=0)
    for site in backend.extract().values():
        assert (site.sigma == 0).all()
        assert site.A.std() == pytest.approx(0.02, rel=0.15)
        assert site.B.std() == pytest.approx(0.02, rel=0.15)
        assert site.scale == pytest.approx(1, rel=1e-5)
