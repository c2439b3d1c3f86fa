"""Batches rows that are looked at and not learned."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from everlora.data.task import Example, Task
from everlora.models.families import Batch, Family

Rows = Sequence[tuple[Example, Task]]
AT_ONCE = 8
"""Rows in one forward pass."""


def to_batch(model: nn.Module, family: Family, rows: Rows) -> Batch:
    """Return rows as the model reads them, on its device."""
    device = next(model.parameters()).device
    inputs = family.collate([family.features(*row) for row in rows])
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
