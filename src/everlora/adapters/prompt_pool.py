"""A pool of prompts from which every example draws those whose keys are nearest to it (L2P)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from everlora.adapters.prompts import PromptBackend, PromptParameters
from everlora.core.updates import Updates
from everlora.data.task import Task


def query(embeds: Tensor, real: Tensor) -> Tensor:
    """What an example is looked up by: the mean of its embeddings (b, s, e) where ``real`` (b, s), in fp32: (b, e)."""
    weight = real[..., None].float()
    return (embeds.float() * weight).sum(1) / weight.sum(1).clamp_min(1)


def nearest(asked: Tensor, keys: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The ``top`` keys (M, e) with the largest cosine to each query (b, e): their indices, ascending, and all cosines.

    Ascending, so that two keys that change places in the order change nothing.
    """
    cosines = normalize(asked, dim=-1) @ normalize(keys, dim=-1).mT
    return cosines.topk(top, dim=-1).indices.sort(-1).values, cosines


class PromptPoolBackend(PromptBackend):
    """The pool, its keys, and the term that draws keys to the examples that chose them."""

    forms = ("prompt-pool",)

    def tokens(self) -> int:
        return int(self.settings.top * self.settings.length)

    def initialise(self, start: Updates | None, tasks: Sequence[Task]) -> nn.Module:
        pool = self.sample_embeddings(self.settings.size, self.settings.length)
        # Keys start where their prompts' vectors have their mean: in the space of the queries.
        keys = self.sample_embeddings(self.settings.size) if self.vocabulary() is None else pool.mean(1)
        return PromptParameters(prompts=pool, keys=keys)

    def prompts(self, embeds: Tensor, real: Tensor) -> Tensor:
        keys = self.holder.keys
        chosen, cosines = nearest(query(embeds, real).detach(), keys, self.settings.top)
        self._side = -self.settings.pull * cosines.gather(-1, chosen).sum(-1)
        self.chosen = chosen.detach()
        drawn: Tensor = self.holder.prompts[chosen].flatten(1, 2)
        return drawn

    _side: Tensor | None = None
    chosen: Tensor | None = None
    """Which prompts the latest batch drew, (b, top)."""

    def auxiliary_loss(self) -> Tensor | None:
        side, self._side = self._side, None
        return side if self.settings.pull and torch.is_grad_enabled() else None

    def detach(self) -> None:
        super().detach()
        self._side = self.chosen = None
