"""Fisher information of what is trained, on a few rows of a task that has been learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from everlora.core.roles import State
from everlora.core.updates import Updates
from everlora.data.task import Example, Task
from everlora.models.families import Family
from everlora.training.trainer import token_mean


def fisher(
    model: nn.Module, family: Family, live: Updates, rows: Sequence[tuple[Example, Task]]
) -> dict[str, dict[str, Tensor]]:
    """(1/n) Σ_i (∂ log p(y_i|x_i) / ∂θ)² of every live tensor, by place and name, in fp32 on the CPU.

    One row at a time, its answer's log-probability whole: the square of a batch's mean gradient is another thing.
    The model is left as it was, in mode and in gradients; dropout is off.
    """
    modes, device = {module: module.training for module in model.modules()}, next(model.parameters()).device
    tensors = [t for site in live.values() for t in site.tensors.values()]
    trained = [t for t in tensors if t.requires_grad]
    squares = {id(t): torch.zeros_like(t, dtype=torch.float32, requires_grad=False) for t in tensors}
    model.eval()
    try:
        for row in rows:
            inputs = family.collate([family.features(*row)])
            with torch.enable_grad():
                logits, targets = family.logits(
                    model, {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
                )
                found = torch.autograd.grad(token_mean(logits, targets, 1), trained, allow_unused=True)
            for t, gradient in zip(trained, found, strict=True):
                if gradient is not None:
                    squares[id(t)] += gradient.detach().float().square() / len(rows)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {name: _named(site.tensors, squares) for name, site in live.items()}


def _named(tensors: State, squares: dict[int, Tensor]) -> State:
    return {key: squares[id(t)].cpu() for key, t in tensors.items()}
