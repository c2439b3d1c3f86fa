"""Which positions of what a layer reads are tokens and not padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from everlora.models.families import Batch, Family
from everlora.models.families.heads import unwrap_model


class Tokens:
    """Knows of the latest batch which positions are real, for every layer of a model.

    A decoder behind an encoder reads positions of its own, but what it attends to are the encoder's: a layer inside
    the encoder, or one that reads the encoder's output, has the encoder's positions.
    """

    def __init__(self, model: nn.Module) -> None:
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._encoded: Tensor | None = None
        whole = unwrap_model(model)
        self._encoder = whole.get_encoder() if getattr(whole.config, "is_encoder_decoder", False) else None
        self._inside = set() if self._encoder is None else set(self._encoder.modules())
        self._hook: Any = None

    def __enter__(self) -> Tokens:
        if self._encoder is not None:
            self._hook = self._encoder.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._first = self._second = self._encoded = self._hook = None

    def set_batch(self, family: Family, batch: Batch) -> None:
        """Take note of the batch that the model is about to read."""
        self._first, self._second = family.token_masks(batch)

    def of(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """The mask (...) of what ``layer`` reads, x (..., i); None if every position counts."""
        behind = self._second is not None and layer not in self._inside and x is not self._encoded
        mask = self._second if behind else self._first
        # A layer behind a choice of positions (a pooled state, those that carry loss) reads no padding.
        return mask.to(x.device) if mask is not None and mask.shape == x.shape[:-1] else None

    def _keep(self, _: nn.Module, args: Any, out: Any) -> None:
        self._encoded = out[0]
