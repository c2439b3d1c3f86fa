"""Runs the layers below the lowest adapted one once for each text, since what they make of it never changes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from everlora.models.families.feature_cache import FeatureCache, digest_of_part, key_of, tensors_of
from everlora.models.families.heads import evaluating, unwrap_model
from everlora.models.families.packed import layout
from everlora.models.families.store import Store
from everlora.runtime import world

Batch = dict[str, Tensor]
LIMIT = 2**30
"""Bytes of hidden states that are held of texts that are learned, and as many of texts that are answered."""
CLOSE = 1e-4
"""By how much of their size logits may differ from those of the whole model: fp32 in another order of rows."""
READ = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What a frozen part reads of a batch."""


class PassThrough(nn.Module):
    """Stands in the place of a frozen layer, or of the embeddings, and returns the hidden states that it is given.

    Attributes:
        idle: what it stands for, whose buffers DDP broadcasts at every step.
    """

    def __init__(self, idle: nn.Module) -> None:
        super().__init__()
        self.idle = idle

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Return ``inputs_embeds`` or ``hidden_states``, or the first argument that can be one of them."""
        given = (inputs.get("inputs_embeds"), inputs.get("hidden_states"), *args)
        return next(one for one in given if isinstance(one, Tensor) and one.is_floating_point())


class _ReachedError(Exception):
    """Ends a forward pass where the first adapted layer would begin."""


@dataclass
class FrozenPart(ABC):
    """Holds what the frozen part of a model makes of texts, and runs the model from there.

    Its hidden states are what the model computes in evaluation mode: in the frozen part there is no dropout. Their
    last bits depend on the other texts of the batch in which they were computed, and a run that is resumed must find
    the same ones. So what is learned is held text by text, from the first step of a task on; and what is answered
    batch by batch, since the same test rows are answered in the same batches after every task.

    Attributes:
        limit: bytes that may be held of texts that are learned, and of batches that are answered.
        fits: whether a model that is cut here gives the answers of the whole one; None before it was tried.
        learns: whether texts that are learned are held, too; their frozen part is then without dropout.
        disk: where batches that were computed are held for other runs, too; None where nowhere.
        looks_back: whether texts are taken from those that are learned, outside training, too; see `looking_back`.
    """

    limit: int = field(default=LIMIT, kw_only=True)
    fits: bool | None = field(default=None, kw_only=True)
    learns: bool = field(default=True, kw_only=True)
    disk: FeatureCache | None = field(default=None, kw_only=True)
    looks_back: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.learned: Store[Tensor] = Store(self.limit)
        self.answered: Store[Tensor] = Store(self.limit)
        self._digest: str | None = None

    @abstractmethod
    def cut(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        """Run a model on a batch from the hidden states of its texts on."""

    @abstractmethod
    def tensors(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Return weights and buffers of the frozen part, by name."""

    @abstractmethod
    def _compute(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Run the frozen part alone, (b, s, h)."""

    def begin_task(self) -> None:
        """Forget the texts that were learned; see `FrozenPart`."""
        self.learned = Store(self.limit)

    @contextmanager
    def looking_back(self) -> Iterator[None]:
        """Take what a task has just learned from where its training left it, inside the block.

        Not where several processes train: each has learned rows of its own, whose last bits are others.
        """
        self.looks_back = self.learns and world.size() == 1
        try:
            yield
        finally:
            self.looks_back = False

    def run(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        """Run a model on a batch: from the hidden states of its texts on, if that comes to the same."""
        known = self.serves(model, inputs, **options)
        return self.cut(model, inputs, **options) if known else model(**inputs, **options)

    def serves(self, model: nn.Module, inputs: Batch, **options: Any) -> bool:
        """Return whether a model may run from the hidden states of its texts on, which is tried on the first batch."""
        if model.training and not self.learns:
            return False
        if self.fits is None:
            self.fits = self.agrees(model, inputs, **options)
        return self.fits

    def agrees(self, model: nn.Module, inputs: Batch, **options: Any) -> bool:
        """Return whether a batch comes out as it does of the whole model: not every model can be cut."""
        try:
            with torch.no_grad(), evaluating(model):
                whole, cut = model(**inputs, **options).logits, self.cut(model, inputs, **options).logits
        # Whatever a model raises that cannot be cut; it is run as a whole then.
        except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, StopIteration):
            return False
        if cut.shape != whole.shape:
            return False
        return bool((cut - whole).abs().max() <= CLOSE * whole.abs().max().clamp_min(1))

    def hidden(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the hidden states of a batch (b, s, h) where the frozen part ends; 0 at padding."""
        if model.training or self.looks_back:
            return self._by_text(model, inputs)
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids)).bool()  # packed rows have none
        key = repr(tuple(ids.shape)).encode() + torch.stack([ids, mask.to(ids.dtype)]).cpu().numpy().tobytes()
        key += layout()
        states = self.answered.get(key)
        if states is None:
            states = self._computed(model, inputs).masked_fill(~mask.unsqueeze(-1), 0)
            self.answered.put(key, states)
        return states

    def _by_text(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return what `hidden` does; of the texts of a batch, those that are not held are computed together."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        keys = [row[real].cpu().numpy().tobytes() for row, real in zip(ids, mask, strict=True)]
        known = [self.learned.get(key) for key in keys]
        new = [k for k, states in enumerate(known) if states is None]
        if new:
            computed = self._computed(model, {name: value[new] for name, value in inputs.items()})
            for k, states in zip(new, computed, strict=True):
                known[k] = states[mask[k]]  # a copy, without padding
        found = [states for states in known if states is not None]
        out = found[0].new_zeros(*ids.shape, found[0].shape[-1])
        for k, states in enumerate(found):
            out[k, mask[k]] = states
            self.learned.put(keys[k], states)
        return out

    def _computed(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return what the frozen part makes of a batch, from the disk if it is there."""
        read = {name: value for name, value in inputs.items() if name in READ}
        if self.disk is None:
            return self._compute(model, read)
        config = unwrap_model(model).config
        if self._digest is None:
            self._digest = digest_of_part(self.tensors(model), config)
        # Packed rows pass by another attention than padded ones, in one run.
        how = f"{config._attn_implementation} {layout().hex()}"
        key = key_of(f"{type(self).__name__} {self._digest} {how}", read)
        held = self.disk.get(key)
        if held is None:
            held = self._compute(model, read)
            self.disk.put(key, held)
        return held.to(read["input_ids"].device)


@dataclass
class FrozenLayers(FrozenPart):
    """Runs the embeddings and the layers below the lowest adapted one once for each text.

    Attributes:
        stack: path of the list of layers in the model.
        first: index of the lowest adapted layer.
    """

    stack: str
    first: int

    @classmethod
    def below(cls, model: nn.Module, adapted: Iterable[str]) -> FrozenLayers | None:
        """Find the frozen layers of a model; None where they are not frozen.

        That is where the first layer is adapted, where layers of several stacks are, and where a form of adapter reads
        what enters or leaves a layer below the adapted ones.

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
        layers = inner.get_submodule(stack)
        if first == 0 or not isinstance(layers, nn.ModuleList):
            return None
        watched = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers[:first])
        return None if watched else cls(stack, first)

    def cut(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        hidden = self.hidden(model, inputs)
        rest = {key: value for key, value in inputs.items() if key not in ("input_ids", "token_type_ids")}
        return self.go_on(model, hidden, **rest, **options)

    def go_on(self, model: nn.Module, hidden: Tensor, **inputs: Any) -> Any:
        """Run the layers from the lowest adapted one on, on hidden states (b, s, h)."""
        with self._skipped(model):
            return model(inputs_embeds=hidden, **inputs)

    def tensors(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        inner = unwrap_model(model)
        upper = {id(t) for layer in inner.get_submodule(self.stack)[self.first :] for _, t in tensors_of(layer)}
        # A head stands outside the body, and what is trained elsewhere stands behind the frozen layers.
        return ((n, t) for n, t in tensors_of(inner.base_model) if id(t) not in upper and not t.requires_grad)

    @torch.no_grad()
    def _compute(self, model: nn.Module, inputs: Batch) -> Tensor:
        inner, caught = unwrap_model(model), []

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: Batch) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedError

        hook = inner.get_submodule(self.stack)[self.first].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with evaluating(inner):
                inner(**inputs)
        except _ReachedError:
            pass
        finally:
            hook.remove()
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
                layers[k] = PassThrough(lower[k])
            if embeddings is not None:
                body.embeddings = PassThrough(embeddings)
            yield
        finally:
            for k, layer in enumerate(lower):
                layers[k] = layer
            if embeddings is not None:
                body.embeddings = embeddings
