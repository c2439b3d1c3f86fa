"""Gradients with respect to the adapted matrices themselves, on a few rows, before a task is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everlora.data.task import Example, Task
from everlora.models.families import Family
from everlora.training.trainer import token_mean


def weight_gradients(
    model: nn.Module,
    family: Family,
    layers: Mapping[str, nn.Module],
    rows: Sequence[tuple[Example, Task]],
    *,
    per_sample: bool,
) -> dict[str, Tensor]:
    """∂L/∂W of each linear layer, (n, o, i), in fp32: n = 1 for the mean loss, or one per row.

    Taken from inputs and output gradients, ∂L/∂W = Σ_tokens g xᵀ, so that quantised weights have one, too. The model
    is left as it was, in mode and in gradients; dropout is off.

    Args:
        model: standing on the past, with an adapter that adds nothing yet.
        family: how it reads rows.
        layers: the layers below the adapter, by path.
        rows: what the loss is taken on.
        per_sample: one gradient per row.
    """
    batches = [[row] for row in rows] if per_sample else [list(rows)]
    modes, device = {module: module.training for module in model.modules()}, next(model.parameters()).device
    model.eval()
    try:
        each = [_gradients(model, family, layers, batch, device) for batch in batches]
    finally:
        model.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode
    return {name: torch.stack([found[name] for found in each]) for name in layers}


def _gradients(
    model: nn.Module,
    family: Family,
    layers: Mapping[str, nn.Module],
    rows: Sequence[tuple[Example, Task]],
    device: torch.device,
) -> dict[str, Tensor]:
    """∂L/∂W of the mean loss on ``rows``, (o, i)."""
    sums: dict[str, Tensor] = {}
    hooks = [layer.register_forward_hook(_watch(name, sums)) for name, layer in layers.items()]
    try:
        inputs = family.collate([family.features(*row) for row in rows])
        with torch.enable_grad():
            logits, targets = family.logits(model, {k: _to(v, device) for k, v in inputs.items()})
            token_mean(logits, targets, targets.numel()).backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name].cpu() for name in layers}


def _watch(name: str, sums: dict[str, Tensor]) -> Any:
    def look(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        # A tensor of its own, which needs a gradient: an adapter adds to it in place, and a view would lose the hook.
        out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
        x = args[0].detach()

        def add(gradient: Tensor) -> None:
            whole = gradient.flatten(0, -2).float().mT @ x.flatten(0, -2).float()
            sums[name] = sums[name] + whole if name in sums else whole

        out.register_hook(add)  # type: ignore[no-untyped-call]
        return out

    return look


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
