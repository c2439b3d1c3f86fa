"""Lets the model write rows of earlier tasks itself, and holds its answers on them by a divergence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import GenerativeReplay, Needs, OutputPenalty
from everlora.parts.distil import distillation


@dataclass(frozen=True, kw_only=True)
class PseudoSamples(GenerativeReplay):
    """Lets the model learn to write its tasks' rows, and write some of earlier tasks before a new one."""

    name: ClassVar[str] = "pseudo_samples"
    needs: ClassVar[Needs] = Needs(any_form=True, stored_rows=False)
    separator: ClassVar[str] = "__ans__"

    eta: float = 0.25
    kappa: float = 0.01
    per_class: int = 2
    tries: int = 64
    top_k: int = 64
    length: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.eta < float("inf"):
            raise ConfigError(f"eta must be a finite number of at least 0, not {self.eta}")
        if not 0 <= self.kappa < 1:
            raise ConfigError(f"kappa must be at least 0 and below 1, not {self.kappa}")
        for name in ("per_class", "tries", "top_k", "length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def choose(self, targets: Sequence[str], draw: random.Random) -> list[int]:
        """Return no row: none of a task is stored."""
        return []

    def cue(self, task: str) -> str:
        return f"__{task}__"

    def written(self, text: str, target: str) -> str:
        return f"{text} {self.separator} {target}"

    def read(self, text: str, labels: Sequence[str]) -> tuple[str, str] | None:
        pieces = [piece.strip() for piece in text.split(self.separator)]
        if len(pieces) != 2 or not all(pieces) or (labels and pieces[1] not in labels):
            return None
        return pieces[0], pieces[1]


@dataclass(frozen=True, kw_only=True)
class PromptDivergence(OutputPenalty):
    """Adds κ' Σ KL(p_prev ‖ p) on rows that the model has written itself."""

    name: ClassVar[str] = "prompt_divergence"
    needs: ClassVar[Needs] = Needs(any_form=True)
    on: ClassVar[Literal["task", "rehearsed"]] = "rehearsed"

    strength: float

    def per_position(self, new: Tensor, old: Tensor) -> Tensor:
        return distillation(new, old, 1.0)
