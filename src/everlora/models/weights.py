"""Checks the files of weights of a model folder before any of them is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from everlora.core.errors import ModelError

_SHARD = re.compile(r"[^/\\\x00]+\.safetensors")


def check_index(index: Path) -> None:
    """Refuse an index of weights that names anything but safetensors files of its own folder.

    Raises:
        ModelError: which file it names, or that it is none.
    """
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        strange = sorted(str(name) for name in named if not _SHARD.fullmatch(str(name)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} is no index of weights; copy or download the model again") from error
    if strange:
        raise ModelError(
            f"{index} names {strange[0]!r}, which is no safetensors file of its folder; pickled weights are "
            f"never loaded"
        )


def quantization_of(config: Any) -> str | None:
    """Say how a model's weights are quantised, as far as answers depend on it; None for plain weights.

    >>> from transformers import LlamaConfig
    >>> quantization_of(LlamaConfig(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
    'bitsandbytes, load_in_4bit=True'
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    facts = dict(found if isinstance(found, dict) else found.to_dict())
    method = str(facts.pop("quant_method", "unknown")).rpartition(".")[2].lower()
    set_ = (f"{key}={value}" for key, value in sorted(facts.items()) if value and not key.startswith("_"))
    return ", ".join((method, *set_))


def check_quantization(name: str, config: Any, device: torch.device) -> None:
    """Refuse quantised weights on which nothing can be learned on this device.

    Raises:
        ModelError: packed by bitsandbytes, on a CPU.
    """
    if device.type == "cpu" and (quantization_of(config) or "").startswith("bitsandbytes"):
        raise ModelError(
            f"the weights of {name!r} are packed by bitsandbytes, whose CPU kernels pass no gradient back, so that "
            f"tasks would learn nothing; take the unquantised model, or a GPU (--device cuda)"
        )
