"""Two helpers around a model's last layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def unwrap_model(model: nn.Module) -> Any:
    """The transformers model inside wrappers (DDP, PEFT), adapters included."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


@contextmanager
def select_positions(layer: nn.Module, where: Tensor) -> Iterator[None]:
    """While active, ``layer`` sees only the hidden states at ``where``, (b, s) of booleans.

    Logits over a vocabulary of 50 000 are the dearest tensor of a step, and all but a few positions carry no loss.
    Selecting them gives the layer a two-dimensional input (n, h): half the cost, and it avoids the copy of the whole
    weight per sample that a sliced three-dimensional input costs in bf16.
    """
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0][where], *args[1:]))
    try:
        yield
    finally:
        hook.remove()
