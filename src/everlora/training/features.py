"""What the adapted layers read: the second moment of their inputs, on a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everlora.core.updates import precise
from everlora.data.task import Example, Task
from everlora.models.families import Family
from everlora.models.tokens import Tokens

AT_ONCE = 8
"""Rows in one forward pass."""


@torch.no_grad()
def second_moments(
    model: nn.Module, family: Family, layers: Mapping[str, nn.Module], rows: Sequence[tuple[Example, Task]]
) -> dict[str, Tensor]:
    """(1/n) Σ x xᵀ over the n tokens of ``rows`` that each layer reads, (i, i), on the CPU; padding is none of them.

    The model is left as it was, in mode and in gradients; dropout is off. A layer that read nothing has zeros.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)
    modes, device = {module: module.training for module in model.modules()}, next(model.parameters()).device
    tokens = Tokens(model)

    def watch(name: str) -> Any:
        def look(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            mask = tokens.of(layer, args[0])
            x = args[0].flatten(0, -2) if mask is None else args[0][mask]
            x = precise(x)
            sums[name] = sums[name] + x.mT @ x if name in sums else x.mT @ x
            counts[name] += len(x)

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        model.eval()
        with tokens:
            for k in range(0, len(rows), AT_ONCE):
                batch = family.collate([family.features(*row) for row in rows[k : k + AT_ONCE]])
                batch = {key: v.to(device) if isinstance(v, Tensor) else v for key, v in batch.items()}
                tokens.set_batch(family, batch)
                family.logits(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    widths = {name: int(getattr(layer, "in_features", 0)) for name, layer in layers.items()}
    empty = {name: torch.zeros(width, width, dtype=torch.float64) for name, width in widths.items()}
    return {name: (sums[name] / counts[name]).cpu() if counts[name] else empty[name] for name in layers}
