"""Chooses the device and the precision of a model's weights.

Default on a CPU that is faster in bf16: base weights in bf16, attention in fp32 (its backward pass is about six times
slower in bf16), adapters, adapted matrices and penalties in fp32. ``--dtype float32`` gives fp32 throughout.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from everlora.core.errors import ConfigError, nearest
from everlora.runtime import world

Packing = Literal["int8", "nf4"]
"""Of the base's linear layers into fewer bits, see `everlora.models.packing`."""
_PACKINGS: dict[str, Packing] = {"int8": "int8", "nf4": "nf4"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FP32_ATTENTION = "sdpa_in_fp32"


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Holds the device and the data type of the base weights.

    Attributes:
        weights: their type; of packed weights that of what they compute with.
        device: where they are.
        packing: of the linear layers; None where they are plain.
    """

    weights: torch.dtype
    device: torch.device
    packing: Packing | None = None

    def describe(self) -> dict[str, str]:
        """Return device and data type as plain words, for records.

        >>> choose("fp32", "cpu").describe()
        {'weights': 'float32', 'device': 'cpu'}
        """
        return {"weights": self.packing or str(self.weights).removeprefix("torch."), "device": self.device.type}


def resolve(device: str) -> torch.device:
    """Return the device that a name means; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the device does not exist here.
    """
    if device == "auto":
        return world.device()
    try:
        found = torch.device(device)
        torch.empty(1, device=found).tolist()  # the device "meta" exists, but holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {device!r} is not available here; use auto, cpu, cuda or mps") from error
    return found


def choose(dtype: str, device: str, *, tiny: bool = False) -> Precision:
    """Choose device and data type of a model's weights.

    >>> choose("bf16", "cpu").weights
    torch.bfloat16

    Args:
        dtype: ``float32``, ``bfloat16``, a packing, or ``auto``, which is bf16 where the hardware is faster in it.
        device: a name of torch, or ``auto``.
        tiny: whether the model is a tiny test model, for which ``auto`` is fp32.

    Raises:
        ConfigError: an unknown data type, or a device that does not exist here.
    """
    where = resolve(device)
    packing = _PACKINGS.get(dtype)
    if dtype == "auto" or packing is not None:
        fast = where.type == "cuda" or computes_in_bf16(torch.cpu.get_capabilities(), processor())
        weights = torch.bfloat16 if fast and not tiny else torch.float32
        return Precision(weights=weights, device=where, packing=packing)
    plain = {"fp32": "float32", "bf16": "bfloat16"}.get(dtype, dtype)
    if plain not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}{nearest(dtype, ['auto', *_DTYPES, *_PACKINGS])}")
    return Precision(weights=_DTYPES[plain], device=where)


def computes_in_bf16(capabilities: Mapping[str, object], name: str) -> bool:
    """Return whether a processor multiplies matrices faster in bf16 than in fp32.

    Not every one that has the instructions does: where they are not those for tiles, bf16 took 0.43 of the time of
    fp32 on AMD's, and 1.9 of it on Intel's (GEMMs of 1024 x 576 x 576 to 1536, one thread, torch 2.13).

    >>> has = {"avx512_bf16": True}
    >>> computes_in_bf16(has, "AuthenticAMD"), computes_in_bf16(has, "GenuineIntel")
    (True, False)
    >>> computes_in_bf16({"avx512_bf16": True, "amx_bf16": True}, "GenuineIntel")
    True
    """
    return bool(capabilities.get("amx_bf16")) or (bool(capabilities.get("avx512_bf16")) and "AuthenticAMD" in name)


def processor() -> str:
    """Return the maker of this processor as it names itself; empty where nobody says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def _in_fp32(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """Compute scaled dot-product attention in fp32, and return its output in the model's own data type."""
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    if isinstance(kwargs.get("position_bias"), Tensor):
        kwargs["position_bias"] = kwargs["position_bias"].float()
    out, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)
    return out.to(query.dtype), weights


AttentionInterface.register(FP32_ATTENTION, _in_fp32)
AttentionMaskInterface.register(FP32_ATTENTION, sdpa_mask)


def attention_in_fp32(model: PreTrainedModel, precision: Precision) -> None:
    """Let attention compute in fp32 on a CPU with bf16 weights, where its bf16 backward pass is six times slower."""
    if precision.device.type == "cpu" and precision.weights == torch.bfloat16 and model._supports_sdpa:
        model.set_attn_implementation(FP32_ATTENTION)


def keep_fp32(layer: nn.Module) -> None:
    """Store one layer's weights in fp32 inside a bf16 model; its input and output keep the model's dtype.

    Folding an update of 1e-4 into a bf16 weight of 0.05 would lose most of it to rounding, so matrices that take
    updates are fp32.
    """
    outside = layer.weight.dtype
    if outside == torch.float32:
        return
    layer.float()
    layer.register_forward_pre_hook(lambda _, args: (args[0].float(), *args[1:]))
    layer.register_forward_hook(lambda _, args, out: out.to(outside))
