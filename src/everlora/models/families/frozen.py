"""The layers below the lowest adapted one, run once for each text: what they make of it never changes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from everlora.models.families.heads import unwrap_model

Batch = dict[str, Tensor]
LIMIT = 2 * 2**30
"""Bytes of hidden states that are held; the texts that were used longest ago are dropped first."""
CLOSE = 1e-4
"""By how much of their size logits may differ from those of the whole model: fp32 in another order of rows."""


class PassThrough(nn.Module):
    """Stands in the place of a frozen layer, or of the embeddings, and returns the hidden states that it is given."""

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Return ``inputs_embeds`` or ``hidden_states``, or the first argument."""
        named = (inputs.get(name) for name in ("inputs_embeds", "hidden_states"))
        return next((one for one in named if one is not None), args[0] if args else None)


class _ReachedError(Exception):
    """Ends a forward pass where the first adapted layer would begin."""


@dataclass
class FrozenLayers:
    """Hidden states of texts where the first adapted layer begins, and a model that goes on from there.

    They are what the model computes in evaluation mode: below the adapted layers there is no dropout.

    Attributes:
        stack: path of the list of layers in the model.
        first: index of the lowest adapted layer.
        limit: bytes that may be held.
        fits: whether a model that is cut here gives the answers of the whole one; None before it was tried.
    """

    stack: str
    first: int
    limit: int = LIMIT
    fits: bool | None = None
    held: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict)
    size: int = 0

    @classmethod
    def below(cls, model: nn.Module, adapted: Iterable[str]) -> FrozenLayers | None:
        """Find the frozen layers of a model; None where the first layer is adapted, or layers of several stacks are.

        Args:
            model: a transformers model, in wrappers or without.
            adapted: paths of the adapted modules in it.
        """
        places = [re.match(r"(.*?)\.(\d+)\.", name) for name in adapted]
        found = {(place[1], int(place[2])) for place in places if place}
        if not all(places) or len({stack for stack, _ in found}) != 1:
            return None
        stack, first = min(found)
        inner = unwrap_model(model)
        if first == 0 or not isinstance(inner.get_submodule(stack), nn.ModuleList):
            return None
        return cls(stack, first)

    def run(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        """Run a model on a batch: from the hidden states of its texts on, if that comes to the same."""
        if self.fits is None:
            self.fits = self.agrees(model, inputs, **options)
            self.held.clear()
            self.size = 0
        return self.cut(model, inputs, **options) if self.fits else model(**inputs, **options)

    def cut(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        """Run a model on a batch from the hidden states of its texts on."""
        hidden = self.hidden(model, inputs)
        rest = {key: value for key, value in inputs.items() if key not in ("input_ids", "token_type_ids")}
        with self._skipped(model):
            return model(inputs_embeds=hidden, **rest, **options)

    def agrees(self, model: nn.Module, inputs: Batch, **options: Any) -> bool:
        """Whether a batch comes out as it does of the whole model: not every architecture can be cut in two."""
        was = model.training
        model.eval()
        try:
            with torch.no_grad():
                whole, cut = model(**inputs, **options).logits, self.cut(model, inputs, **options).logits
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return False
        finally:
            model.train(was)
        if cut.shape != whole.shape:
            return False
        return bool((cut - whole).abs().max() <= CLOSE * whole.abs().max().clamp_min(1))

    def hidden(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the hidden states of a batch (b, s, h) where the first adapted layer begins; 0 at padding."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        keys = [row[real].cpu().numpy().tobytes() for row, real in zip(ids, mask, strict=True)]
        new = [k for k, key in enumerate(keys) if key not in self.held]
        found: dict[bytes, Tensor] = {}
        if new:
            states = self._compute(model, {name: value[new] for name, value in inputs.items()})
            found = {keys[k]: state[mask[k]].clone() for k, state in zip(new, states, strict=True)}
        for key in keys:
            if key in self.held:
                self.held.move_to_end(key)
                found[key] = self.held[key]
        self._hold(found)
        out = ids.new_zeros(*ids.shape, next(iter(found.values())).shape[-1], dtype=next(iter(found.values())).dtype)
        for k, key in enumerate(keys):
            out[k, mask[k]] = found[key]
        return out

    @torch.no_grad()
    def _compute(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Run the frozen layers alone, (b, s, h)."""
        inner, caught = unwrap_model(model), []

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedError

        modes = {module: module.training for module in inner.modules()}
        inner.eval()
        hook = inner.get_submodule(self.stack)[self.first].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            inner(**inputs)
        except _ReachedError:
            pass
        finally:
            hook.remove()
            for module, mode in modes.items():
                module.training = mode
        states: Tensor = caught[0]
        return states

    @contextmanager
    def _skipped(self, model: nn.Module) -> Iterator[None]:
        """Let a model take hidden states for embeddings, and begin at the first adapted layer, inside the block."""
        inner = unwrap_model(model)
        layers, body = inner.get_submodule(self.stack), inner.base_model
        lower = list(layers[: self.first])
        embeddings = getattr(body, "embeddings", None)
        try:
            for k in range(self.first):
                layers[k] = PassThrough()
            if embeddings is not None:
                body.embeddings = PassThrough()
            yield
        finally:
            for k, layer in enumerate(lower):
                layers[k] = layer
            if embeddings is not None:
                body.embeddings = embeddings

    def _hold(self, found: dict[bytes, Tensor]) -> None:
        for key, states in found.items():
            if key not in self.held:
                self.held[key] = states
                self.size += states.nbytes
        while self.size > self.limit and self.held:
            _, dropped = self.held.popitem(last=False)
            self.size -= dropped.nbytes
