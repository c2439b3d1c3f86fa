"""Adapters on disk: standard PEFT folders, read and written without a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from everlora.core.errors import FolderError
from everlora.core.sites import LowRank, Sites

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"


def read(folder: Path, scale: float | None = None) -> tuple[dict[str, LowRank], dict[str, Tensor]]:
    """Read an adapter: its updates by module, and every other tensor (a classification head) by name.

    Raises:
        FolderError: the file is missing, damaged or empty.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise FolderError(f"the adapter in {folder} cannot be read: {error}") from error
    if scale is None:
        scale = config["lora_alpha"] / config["r"]
    sites, rest = {}, {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX)
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            sites[module] = LowRank(tensor.float(), tensors[f"{PREFIX}{module}.lora_B.weight"].float(), scale)
        elif not name.endswith(".lora_B.weight"):
            rest[name] = tensor
    if not sites:
        raise FolderError(f"the adapter in {folder} holds no LoRA weights")
    return sites, rest


def write(folder: Path, sites: Sites, rest: dict[str, Tensor], like: Path) -> None:
    """Write ``sites`` as one PEFT adapter with the settings of the adapter folder ``like`` and the rank that it needs.

    An update of any scale is written with PEFT's scaling of 1 (alpha = r), its factor carried by B.
    """
    whole = {name: site.absorb_scale() for name, site in sites.items()}
    ranks = {site.rank for site in whole.values()}
    config = LoraConfig.from_pretrained(str(like))
    config.r = config.lora_alpha = max(ranks)
    config.use_rslora = False
    config.inference_mode = True
    if len(ranks) > 1:
        config.rank_pattern = config.alpha_pattern = {n: s.rank for n, s in whole.items() if s.rank != config.r}
    tensors = {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in rest.items()}
    for name, site in whole.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = site.A.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = site.B.contiguous()
    beside = folder / f".{WEIGHTS}.part"
    save_file(tensors, beside, metadata={"format": "pt"})
    beside.replace(folder / WEIGHTS)
    config.save_pretrained(str(folder))


def same(a: Sites, b: Sites) -> bool:
    """Whether two adapters are equal bit for bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[n].A, b[n].A) and torch.equal(a[n].B, b[n].B) and a[n].scale == b[n].scale for n in a
    )
