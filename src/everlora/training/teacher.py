"""Lets the model answer as it did when a task began, for penalties that compare its answers with those of now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everlora.models.families import Batch, Family


class Teacher:
    """Answers as the model did at the time when this object was made.

    Only what is trained is copied: a fresh adapter adds nothing yet, a continued one is where the last task left it,
    so in both cases the model with these values is the model of the task before.

    Args:
        params: the trainable parameters, as they are now.
    """

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        self.params = list(params)
        self.values = [p.detach().clone() for p in params]

    @contextmanager
    def former_model(self) -> Iterator[None]:
        """Make the model what it was, inside the block."""
        # Swapped and not copied: the graph of the present pass refers to the parameters, and finds its own data there
        # again before the pass backward.
        now = [p.data for p in self.params]
        for p, value in zip(self.params, self.values, strict=True):
            p.data = value
        try:
            yield
        finally:
            for p, data in zip(self.params, now, strict=True):
                p.data = data

    @torch.no_grad()
    def logits(self, model: nn.Module, family: Family, batch: Batch) -> Tensor:
        """Compute the former logits (n, u) at positions that carry loss, over answers known then; dropout is off."""
        training = model.training
        model.eval()
        try:
            with self.former_model():
                return family.logits_with_known(model, batch)[2].detach()
        finally:
            model.train(training)
