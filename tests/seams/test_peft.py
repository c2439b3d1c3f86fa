"""What we rely on in PEFT."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

import lives
from everlora.engine.mount import Mount
from lives import MODELS


@pytest.mark.parametrize("model", MODELS)
def test_unload_gives_back_the_very_modules(model):
    """Hooks and folded weights live on them, so identity matters, not equality."""
    loaded = lives.fresh(model)
    loaded.family.begin(loaded.model, [lives.stream(model)[0]], torch.Generator().manual_seed(0))
    before = dict(loaded.model.named_modules())
    mount = Mount(loaded, {"r": 4, "lora_alpha": 8})
    for _ in range(2):
        mount.open(seed=0)
        mount.close()
    after = dict(loaded.model.named_modules())
    head = loaded.family.head
    assert before.keys() == after.keys()
    assert all(after[n] is m for n, m in before.items() if n != head)


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_unload_leaves_the_trained_head(model):
    loaded = lives.fresh(model)
    loaded.family.begin(loaded.model, [lives.stream(model)[0]], torch.Generator().manual_seed(0))
    mount = Mount(loaded, {"r": 4, "lora_alpha": 8})
    peft = mount.open(seed=0)
    trained = {n: p for n, p in peft.named_parameters() if "modules_to_save" in n}
    assert all(p.requires_grad for p in trained.values())
    for parameter in trained.values():
        parameter.data.fill_(0.5)
    mount.close()
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
        mount = Mount(lives.fresh("tiny-llama"), {"r": 4, "lora_alpha": 8})
        mount.open(seed=3)
        adapters.append(mount.extract())
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
    model = get_peft_model(lives.fresh("tiny-llama").model, config)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(lives.fresh("tiny-llama").model, str(tmp_path))
    ranks = {n.split(".")[-4]: len(p) for n, p in again.named_parameters() if "lora_A" in n}
    assert ranks == {"q_proj": 4, "v_proj": 2}
    scales = {m.scaling["default"] for m in again.modules() if isinstance(m, LoraLayer)}
    assert scales == {1.0}
