"""Masks padding for every layer of a model, so that statistics of activations leave it out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from everlora.models.families import Batch, Family
from everlora.models.families.heads import unwrap_model


class Tokens:
    """Knows, inside a ``with`` block, which positions of the latest batch are real, for every layer of a model.

    The decoder of an encoder-decoder has positions of its own, but its cross-attention reads the encoder's output: a
    layer inside the encoder, or one that reads that output, has the encoder's positions.

    >>> import torch
    >>> from everlora.models.loading import load
    >>> base = load("tiny-llama")
    >>> with Tokens(base.model) as tokens:
    ...     tokens.set_batch(base.family, {"attention_mask": torch.tensor([[0, 1, 1]])})
    ...     tokens.of(base.model.lm_head, torch.zeros(1, 3, 64))
    tensor([[False,  True,  True]])
    """

    def __init__(self, model: nn.Module) -> None:
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._encoded: Tensor | None = None
        inner = unwrap_model(model)
        self._encoder = inner.get_encoder() if getattr(inner.config, "is_encoder_decoder", False) else None
        # A layer of the decoder reads the decoder's own positions, unless it is given the encoder's output; see `of`.
        self._inside = set() if self._encoder is None else set(self._encoder.modules())
        self._model = inner
        self._hooks: list[Any] = []

    def __enter__(self) -> Tokens:
        if self._encoder is not None:
            # What the encoder makes of a batch may be known before, and is then handed over (`FrozenEncoder`).
            given = self._model.register_forward_pre_hook(self._take, with_kwargs=True)
            self._hooks = [self._encoder.register_forward_hook(self._keep), given]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._first = self._second = self._encoded = None
        self._hooks = []

    def set_batch(self, family: Family, batch: Batch) -> None:
        """Set the batch that the model is about to read."""
        self._first, self._second = family.token_masks(batch)

    def of(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """Return the mask (...) of the input x (..., i) of ``layer``; None if every position counts."""
        behind = self._second is not None and layer not in self._inside and x is not self._encoded
        mask = self._second if behind else self._first
        # A layer whose input is a selection of positions (a pooled state, those with a loss) reads no padding.
        return mask.to(x.device) if mask is not None and mask.shape == x.shape[:-1] else None

    def _keep(self, _: nn.Module, args: Any, out: Any) -> None:
        self._encoded = out[0]

    def _take(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if (outputs := kwargs.get("encoder_outputs")) is not None:
            self._encoded = outputs[0]
