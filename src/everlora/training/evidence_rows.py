"""Rows that are looked at and not learned: how they are batched, and a model that stays as it was meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from everlora.data.task import Example, Task
from everlora.models.families import Batch, Family

Rows = Sequence[tuple[Example, Task]]
AT_ONCE = 8
"""Rows in one forward pass."""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def to_batch(model: nn.Module, family: Family, rows: Rows) -> Batch:
    """Rows as the model reads them, on its device."""
    device = next(model.parameters()).device
    inputs = family.collate([family.features(*row) for row in rows])
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
