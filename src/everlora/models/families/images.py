"""Defines image encoders (ViT) with a classification head that grows with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.models.families.base import GREEDY, Batch, Features, GenerationInput, Scoring
from everlora.models.families.classifier import Classifier


class ImageClassifier(Classifier):
    """Is an image encoder (ViT) with a head."""

    name: ClassVar[str] = "image-classifier"
    modality: ClassVar[Literal["text", "image"]] = "image"
    peft_task: ClassVar[str | None] = None

    def check(self, task: Task) -> None:
        if task.form != "image":
            raise DataError(f"task {task.name!r} holds text; a model of family {self.name!r} reads images")
        super().check(task)

    def pixels(self, examples: Sequence[Example]) -> Tensor:
        """Return pixel values (b, 3, h, w) from the model's processor; grey images are repeated to three channels."""
        images = [np.repeat(e.input[..., None], 3, -1) if e.input.ndim == 2 else e.input for e in examples]
        out: Tensor = self.processor(
            images=images, return_tensors="pt", input_data_format="channels_last"
        ).pixel_values
        return out

    def features(self, example: Example, task: Task) -> Features:
        return {"example": example, "label": self._row(task, example.target), "columns": self.columns(task)}

    def collate(self, rows: Sequence[Features]) -> Batch:
        labels = torch.tensor([row["label"] for row in rows])
        pixels = self.pixels([row["example"] for row in rows])
        return {"pixel_values": pixels, "labels": labels, "allowed": self._allowed(rows)}

    def length(self, example: Example, task: Task) -> int:
        # All images have one size, so there is nothing to sort by.
        return 1

    def try_out(self, model: nn.Module, task: Task, rows: Sequence[Example]) -> None:
        model(pixel_values=self.pixels(rows).to(next(model.parameters()).device))

    def predict(
        self,
        model: nn.Module,
        task: Task,
        rows: Sequence[Example],
        scoring: Scoring,
        sampling: GenerationInput = GREEDY,
    ) -> list[str]:
        weight = next(p for p in model.parameters() if p.is_floating_point())
        return self._answer(model(pixel_values=self.pixels(rows).to(weight.device)).logits, task, scoring)
