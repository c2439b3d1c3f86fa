"""Declares the form ``full``: no adapter, all weights of the model are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from everlora.core.adapter import Adapter


@dataclass(frozen=True, kw_only=True)
class FullWeights(Adapter):
    """Trains all weights, in fp32: AdamW's steps of 1e-4 on a weight of 0.05 are lost in bf16.

    Attributes:
        freeze_embeddings: leave the input embeddings, and an output layer that is tied to them, as they are.
    """

    noun: ClassVar[str] = "set of weights"
    loads_with_peft: ClassVar[bool] = False
    whole_model: ClassVar[bool] = True
    policy: Literal["new", "continue"] = "continue"
    form: str = "full"
    freeze_embeddings: bool = False

    @property
    def learning_rate(self) -> float:
        """Return 1e-4, as the MIGU repository; full weights at LoRA's rate forget everything."""
        return 1e-4
