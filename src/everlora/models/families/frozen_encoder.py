"""Runs an encoder once for each text where only the decoder is adapted, and finds what of a model is frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from everlora.models.families.feature_cache import FeatureCache, tensors_of
from everlora.models.families.frozen import Batch, FrozenLayers, FrozenPart
from everlora.models.families.heads import evaluating, unwrap_model


@dataclass
class FrozenEncoder(FrozenPart):
    """Runs the encoder once for each text, where the decoder alone is adapted."""

    @classmethod
    def of(cls, model: nn.Module, adapted: Iterable[str]) -> FrozenEncoder | None:
        """Find the encoder of a model; None where there is none, or where it is not frozen.

        Args:
            model: a transformers model, in wrappers or without.
            adapted: paths of the adapted modules in it.
        """
        inner = unwrap_model(model)
        if not inner.config.is_encoder_decoder:
            return None
        inside = set(inner.get_encoder().modules())
        watched = any(module._forward_hooks or module._forward_pre_hooks for module in inside)
        trained = any(p.requires_grad for module in inside for p in module.parameters(recurse=False))
        moved = any(inner.get_submodule(name) in inside for name in adapted)
        # Every encoder-decoder takes what its encoder made of a text: that is how it generates.
        return None if watched or trained or moved else cls(fits=True)

    def cut(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        outputs = BaseModelOutput(last_hidden_state=self.hidden(model, inputs))
        return model(encoder_outputs=outputs, **inputs, **options)

    def tensors(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        return tensors_of(unwrap_model(model).get_encoder())

    @torch.no_grad()
    def _compute(self, model: nn.Module, inputs: Batch) -> Tensor:
        encoder = unwrap_model(model).get_encoder()
        with evaluating(encoder):
            states: Tensor = encoder(**inputs).last_hidden_state
        return states


def find_frozen(
    model: nn.Module, adapted: Collection[str], *, by_layers: bool, disk: FeatureCache | None = None
) -> FrozenPart | None:
    """Find the part of a model that is frozen and need not be computed again; None where there is none.

    Args:
        model: a transformers model, in wrappers or without.
        adapted: paths of the adapted modules in it.
        by_layers: whether the adapted layers were chosen, which switches dropout in the frozen ones off. Where
            they were not, what is learned goes through the whole model, with its dropout.
        disk: where batches that were computed are held for other runs.
    """
    encoder = FrozenEncoder.of(model, adapted)
    found = encoder or (FrozenLayers.below(model, adapted) if by_layers else None)
    if found is not None:
        found.learns, found.disk = by_layers, disk
    return found
