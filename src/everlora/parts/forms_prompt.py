"""Declares soft prompts: vectors that stand among a text's embeddings; the model stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError


class _Soft(Adapter):
    """Holds what soft prompts have in common."""

    @property
    def learning_rate(self) -> float:
        """Return 3e-2: vectors of embeddings want far more than LoRA does (ProgPrompt's code has 0.3, LFPT5's 0.5).

        Dev rows (recipes/systems.yaml, seed 7), OA at 1e-2, 3e-2 and 1e-1: L2P 49.0, 46.4, 40.6; ProgPrompt 45.3,
        49.5, 50.0.
        """
        return 3e-2


@dataclass(frozen=True, kw_only=True)
class PromptPool(_Soft):
    """Trains a pool from which every example draws the prompts whose keys are nearest to it.

    Attributes:
        size: prompts M in the pool.
        length: vectors ℓ per prompt.
        top: prompts N that an example draws.
        pull: weight c of the term that draws keys to the examples that chose them.
    """

    noun: ClassVar[str] = "pool of prompts"
    loads_with_peft: ClassVar[bool] = False

    policy: Literal["new", "continue"] = "continue"
    form: str = "prompt-pool"
    size: int = 10
    length: int = 5
    top: int = 3
    pull: float = 0.5

    @property
    def own_loss(self) -> bool:
        return self.pull > 0

    def __post_init__(self) -> None:
        _positive(size=self.size, length=self.length, top=self.top)
        if self.top > self.size:
            raise ConfigError(f"top={self.top} prompts cannot be drawn from a pool of size={self.size}; lower top")
        if not 0 <= self.pull < float("inf"):
            raise ConfigError(f"pull must be a finite number of at least 0, not {self.pull}")


@dataclass(frozen=True, kw_only=True)
class PromptChain(_Soft):
    """Trains one prompt per task, in front of those of the earlier tasks.

    Attributes:
        length: vectors m per task.
        mlp: width of the residual network through which a prompt is trained; 0 for none.
    """

    noun: ClassVar[str] = "soft prompt"
    loads_with_peft: ClassVar[bool] = False

    form: str = "prompt-chain"
    length: int = 10
    mlp: int = 0

    def __post_init__(self) -> None:
        _positive(length=self.length)
        if self.mlp < 0:
            raise ConfigError(f"mlp is the width of a network, 0 for none, not {self.mlp}")


@dataclass(frozen=True, kw_only=True)
class Prompt(_Soft):
    """Trains one prompt for all tasks, behind the text.

    Attributes:
        length: vectors m.
        phrase: what it is about: its mean embedding is where the first vector starts.
        frequent: the other vectors start at tokens drawn from so many of the most frequent ones.
    """

    noun: ClassVar[str] = "soft prompt"
    loads_with_peft: ClassVar[bool] = False

    policy: Literal["new", "continue"] = "continue"
    form: str = "prompt"
    length: int = 300
    phrase: str = ""
    frequent: int = 5000

    def __post_init__(self) -> None:
        _positive(length=self.length, frequent=self.frequent)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, not {size}")
