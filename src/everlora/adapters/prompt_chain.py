"""Trains the form ``prompt-chain`` (Progressive Prompts): a soft prompt per task, before those of earlier tasks.

The earlier prompts do not change any more: they are constants of the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from everlora.adapters.prompts import PLACE, PromptBackend, PromptParameters
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import ModuleUpdate, Updates, Weights
from everlora.data.task import Task


def reparameterise(prompt: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor) -> Tensor:
    """Return P + W₂ relu(W₁ P + b₁) + b₂ of a prompt (m, e) and weights (h, e), (h,), (e, h), (e,): (m, e).

    >>> prompt = torch.ones(1, 2)
    >>> reparameterise(prompt, torch.eye(2), torch.zeros(2), 2 * torch.eye(2), torch.zeros(2))
    tensor([[3., 3.]])
    """
    return prompt + linear(linear(prompt, down, down_bias).relu(), up, up_bias)


class PromptChainBackend(PromptBackend):
    """Reads the prompts [P_t, …, P_1]; only P_t, and the network around it, are trained."""

    forms = ("prompt-chain",)
    needs_past = True
    earlier: tuple[Tensor, ...] = ()
    """The prompts of earlier tasks, newest first."""

    def tokens(self) -> int:
        return int(self.settings.length) * (1 + len(self.earlier))

    def trained_vectors(self) -> int:
        return int(self.settings.length) + 2 * int(self.settings.mlp)  # and the two layers of the network around it

    def plan_tasks(self, tasks: int) -> None:
        self.base.family.reserve(int(self.settings.length) * tasks)

    def initialise(self, start: Updates | None, tasks: Sequence[Task]) -> nn.Module:
        prompt, h = self.sample_embeddings(self.settings.length), int(self.settings.mlp)
        if start is not None or not h:  # a finished prompt has its network folded in
            return PromptParameters(prompt=prompt)
        e = prompt.shape[-1]
        bound = e**-0.5
        # With `up` at 0 the network adds nothing at first: training starts from the embeddings that were drawn.
        return PromptParameters(
            prompt=prompt,
            down=(torch.rand(h, e) * 2 - 1) * bound,
            down_bias=torch.zeros(h),
            up=torch.zeros(e, h),
            up_bias=torch.zeros(e),
        )

    def prompts(self, embeds: Tensor, real: Tensor) -> Tensor:
        chain = torch.cat([self.newest(), *(one.to(embeds.device) for one in self.earlier)])
        return chain.expand(len(embeds), -1, -1)

    def newest(self) -> Tensor:
        """Return the trainable prompt as the model reads it, (m, e)."""
        parameters = dict(self.holder.named_parameters())
        return reparameterise(**parameters) if "up" in parameters else parameters["prompt"]

    @torch.no_grad()
    def extract(self) -> dict[str, ModuleUpdate]:
        # The network only helps training: its output is the prompt that is stored.
        return {PLACE: Weights({"prompt": self.newest().detach().cpu().float().clone()})}

    def set_past(self, past: UpdateHistory, merge: Merge | None = None) -> None:
        self.earlier = tuple(delta[PLACE].tensors["prompt"] for delta in reversed(past.deltas))

    def detach(self) -> None:
        super().detach()
        self.earlier = ()
