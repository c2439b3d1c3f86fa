"""Random tensors and derivatives for the tests of parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def draw(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype) for shape in shapes]


def numeric(value: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of the function ``value`` at ``x``."""
    out = torch.empty_like(x)
    for k in range(x.numel()):
        ends = []
        for sign in (1, -1):
            moved = x.clone()
            moved.view(-1)[k] += sign * step
            ends.append(value(moved))
        out.view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
    return out


def by_autograd(value: Callable[..., Tensor], *points: Tensor) -> tuple[Tensor, ...]:
    """The function ``value`` at ``points``, and its gradients there."""
    leaves = [point.clone().requires_grad_() for point in points]
    result = value(*leaves)
    gradients = torch.autograd.grad(result.sum(), leaves, materialize_grads=True)  # 0 where a point has no say
    return (result.detach(), *gradients)
