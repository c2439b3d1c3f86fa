"""Helpers for wrapped models and for their last layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig


def unwrap_model(model: nn.Module) -> Any:
    """Return the transformers model inside wrappers (DDP, PEFT), adapters included."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


@contextmanager
def select_positions(layer: nn.Module, where: Tensor) -> Iterator[None]:
    """Let ``layer`` compute only the positions ``where`` (b, s) is true, for as long as the block runs.

    Logits over a vocabulary of 50 000 are the largest tensor of a step, and few positions have a loss. Selecting these
    gives the layer a two-dimensional input (n, h): half the cost, and it avoids the copy of the weight per sample that
    a sliced three-dimensional input costs in bf16.

    >>> import torch
    >>> layer = nn.Linear(4, 3)
    >>> with select_positions(layer, torch.tensor([[True, False], [True, True]])):
    ...     layer(torch.zeros(2, 2, 4)).shape
    torch.Size([3, 3])
    """
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0][where], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def neutral_generation(model: nn.Module) -> Iterator[Any]:
    """Give the bare model without generation settings of its own, for as long as the block runs.

    `generate` fills what a call leaves open from the model's ``generation_config.json``: beams, penalties, bans and
    minimum lengths of a checkpoint would change answers that are recorded as greedy.

    >>> from everlora import load
    >>> model = load("tiny-llama").model
    >>> model.generation_config.num_beams = 4
    >>> with neutral_generation(model) as bare:
    ...     print(bare.generation_config.num_beams)
    None
    >>> model.generation_config.num_beams
    4
    """
    bare = unwrap_model(model)
    before, bare.generation_config = bare.generation_config, GenerationConfig()
    try:
        yield bare
    finally:
        bare.generation_config = before
