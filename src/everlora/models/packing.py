"""Packs the linear layers of a base model into fewer bits; what is learned stays beside them, in fp32 and exact.

``int8`` is torchao's: a weight is a row of whole numbers times one scale for each output, on a CPU as on a GPU.
``nf4`` is the 4-bit type of QLoRA (https://arxiv.org/abs/2305.14314) by bitsandbytes, which passes gradients back on
GPUs only. Embeddings, output layers and heads stay as they are.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from everlora.core.errors import ConfigError
from everlora.runtime.precision import Packing, Precision

LIBRARIES: dict[Packing, str] = {"int8": "torchao", "nf4": "bitsandbytes"}


def possible(precision: Precision) -> Precision:
    """Return a precision, unless its packing cannot be made here, or nothing could be learned on it.

    Raises:
        ConfigError: which, and what to do.
    """
    if precision.packing is None:
        return precision
    library = LIBRARIES[precision.packing]
    if precision.packing == "nf4" and precision.device.type != "cuda":
        raise ConfigError(
            "--dtype nf4 needs a GPU, since kernels of bitsandbytes for other devices pass no gradient back, so that "
            "tasks would learn nothing; take --dtype int8, or --device cuda where there is one"
        )
    if find_spec(library) is None:
        raise ConfigError(f"--dtype {precision.packing} needs {library}; install it: pip install {library}")
    if precision.packing == "int8":
        with _quiet():  # before transformers or PEFT imports it
            importlib.import_module("torchao.quantization")
    return precision


def pack(model: Any, precision: Precision, spared: Collection[str]) -> None:
    """Pack the linear layers of a frozen model, in place.

    Args:
        model: a transformers model.
        precision: that names the packing; without one nothing is done.
        spared: names of modules that stay as they are, with all that is in them: heads, which tasks train.

    Raises:
        ConfigError: there is none.
    """
    if precision.packing is None:
        return
    out = model.get_output_embeddings()
    chosen = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer is not out and not any(part in spared for part in _parts(name))
    }
    if not chosen:
        raise ConfigError(
            f"--dtype {precision.packing} packs linear layers, and {type(model).__name__} has none; take float32"
        )
    if precision.packing == "int8":
        with _quiet():
            quantization = importlib.import_module("torchao.quantization")
            how = quantization.Int8WeightOnlyConfig()
            quantization.quantize_(model, how, filter_fn=lambda layer, _: any(layer is one for one in chosen.values()))
    else:
        _to_nf4(model, chosen)
    model.requires_grad_(False)


def _to_nf4(model: Any, chosen: dict[str, nn.Linear]) -> None:
    """Put bitsandbytes' layers in the place of linear ones; weights are packed as they come to the GPU."""
    bnb = importlib.import_module("bitsandbytes")
    for name, layer in chosen.items():
        has_bias, dtype, device = layer.bias is not None, layer.weight.dtype, layer.weight.device
        shape = (layer.in_features, layer.out_features)
        packed = bnb.nn.Linear4bit(*shape, bias=has_bias, compute_dtype=dtype, quant_type="nf4", device="meta")
        packed.weight = bnb.nn.Params4bit(layer.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        packed.bias = layer.bias
        model.set_submodule(name, packed.to(device))
    model.is_loaded_in_4bit = True  # by which PEFT knows which layers to make


def describe(precision: Precision) -> str | None:
    """Say how a model was packed, as far as answers depend on it; None for plain weights."""
    if precision.packing is None:
        return None
    library = LIBRARIES[precision.packing]
    return f"{library} {version(library)}, {precision.packing} weights"


def _parts(name: str) -> Iterator[str]:
    """Return a module's name, and the names of those that it is in."""
    pieces = name.split(".")
    return (".".join(pieces[: k + 1]) for k in range(len(pieces)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchao from telling which of its kernels for other machines it could not load."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def is_packed(weight: torch.Tensor) -> bool:
    """Return whether a weight is held in a class of a library's own, so that it has neither norm nor plain entries.

    >>> is_packed(torch.zeros(2)), is_packed(nn.Parameter(torch.zeros(2)))
    (False, False)
    """
    return type(weight) not in (nn.Parameter, torch.Tensor)
