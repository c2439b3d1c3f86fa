"""The model as it was when a task began, for penalties that compare answers with its."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everlora.models.families import Batch, Family


class Teacher:
    """What a model answered when it was made.

    Only what is trained is kept, as a copy: a fresh adapter adds nothing yet, a continued one stands where the last
    task left it, and so either way the model with these values is the model of the task before.

    Args:
        params: the trainable parameters, as they are now.
    """

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        self.params = list(params)
        self.then = [p.detach().clone() for p in params]

    @contextmanager
    def back(self) -> Iterator[None]:
        """Inside, the model is what it was."""
        now = [p.data for p in self.params]
        for p, then in zip(self.params, self.then, strict=True):
            p.data = then
        try:
            yield
        finally:
            for p, data in zip(self.params, now, strict=True):
                p.data = data

    @torch.no_grad()
    def logits(self, model: nn.Module, family: Family, batch: Batch) -> Tensor:
        """The former logits (n, u) of the positions that carry loss, over answers known then; dropout is off."""
        training = model.training
        model.eval()
        try:
            with self.back():
                return family.logits_with_known(model, batch)[2].detach()
        finally:
            model.train(training)
