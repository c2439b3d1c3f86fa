"""Trains the form ``prompt-pool`` (L2P): a pool of soft prompts, from which every example selects its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from everlora.adapters.prompts import PromptBackend, PromptParameters
from everlora.core.updates import Updates
from everlora.data.task import Task


def query(embeds: Tensor, real: Tensor) -> Tensor:
    """Return the mean of embeddings (b, s, e) over the positions that are ``real`` (b, s), in fp32: (b, e)."""
    weight = real[..., None].float()
    return (embeds.float() * weight).sum(1) / weight.sum(1).clamp_min(1)


def nearest(queries: Tensor, keys: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return the ``top`` keys with the largest cosine to each query, and all cosines.

    >>> nearest(torch.tensor([[1.0, 0.1]]), torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), top=2)[0]
    tensor([[1, 2]])

    Args:
        queries: (b, e).
        keys: (M, e).
        top: number of keys.

    Returns:
        Indices (b, top) in ascending order, so that two keys that change ranks change nothing; cosines (b, M).
    """
    cosines = normalize(queries, dim=-1) @ normalize(keys, dim=-1).mT
    return cosines.topk(top, dim=-1).indices.sort(-1).values, cosines


class PromptPoolBackend(PromptBackend):
    """Trains the pool and its keys, with a loss that pulls keys towards the examples that selected them."""

    forms = ("prompt-pool",)

    def tokens(self) -> int:
        return int(self.settings.top * self.settings.length)

    def trained_vectors(self) -> int:
        return int(self.settings.size * (self.settings.length + 1))  # prompts, and a key for each

    def initialise(self, start: Updates | None, tasks: Sequence[Task]) -> nn.Module:
        pool = self.sample_embeddings(self.settings.size, self.settings.length)
        # Keys start at the mean of their prompts' vectors, so that they lie in the space of the queries.
        keys = self.sample_embeddings(self.settings.size) if self.vocabulary() is None else pool.mean(1)
        return PromptParameters(prompts=pool, keys=keys)

    def prompts(self, embeds: Tensor, real: Tensor) -> Tensor:
        keys = self.holder.keys
        # The query is a constant: the term pulls keys towards texts, and nothing towards the keys.
        chosen, cosines = nearest(query(embeds, real).detach(), keys, self.settings.top)
        self._side = -self.settings.pull * cosines.gather(-1, chosen).sum(-1)
        self.chosen = chosen.detach()
        selected: Tensor = self.holder.prompts[chosen].flatten(1, 2)
        return selected

    _side: Tensor | None = None
    chosen: Tensor | None = None
    """The prompts that the latest batch selected, (b, top)."""

    def auxiliary_loss(self) -> Tensor | None:
        # Taken once, so that no later pass without this batch finds it again.
        side, self._side = self._side, None
        return side if self.settings.pull and torch.is_grad_enabled() else None

    def detach(self) -> None:
        super().detach()
        self._side = self.chosen = None
