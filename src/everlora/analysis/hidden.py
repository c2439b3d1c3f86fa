"""Reads what a model makes of texts: the mean over tokens of its last hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from everlora.core.errors import ConfigError
from everlora.models.families import Family
from everlora.models.families.base import IGNORE
from everlora.models.families.heads import evaluating
from everlora.training.evidence_rows import Rows, to_batch


@torch.no_grad()
def hidden_means(model: nn.Module, family: Family, rows: Rows) -> Tensor:
    """Return a vector for every row, (n, d), in fp32 on the CPU; the answer's own tokens do not count.

    Args:
        model: of transformers.
        family: how it reads rows.
        rows: one at a time, so that there is no padding.

    Raises:
        ConfigError: a model whose hidden states cannot be found.
    """
    seen: list[Tensor] = []

    def look(_: nn.Module, __: Any, output: Any) -> None:
        # The text of an encoder-decoder is what its encoder reads.
        states = output.get("encoder_last_hidden_state", output.get("last_hidden_state"))
        if states is not None and not seen:
            seen.append(states)

    found = []
    body: Any = model
    handle = body.base_model.register_forward_hook(look)
    try:
        with evaluating(model):
            for row in rows:
                seen.clear()
                batch = to_batch(model, family, [row])
                family.logits(model, batch)
                if not seen:
                    raise ConfigError(f"the hidden states of {type(model).__name__} cannot be found")
                labels, states = batch.get("labels"), seen[0][0].float()
                same = labels is not None and labels.shape[-1] == len(states)
                prompt = labels[0] == IGNORE if labels is not None and same else None
                found.append((states if prompt is None or not prompt.any() else states[prompt]).mean(0).cpu())
    finally:
        handle.remove()
    return torch.stack(found)
