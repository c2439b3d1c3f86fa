"""Declares weights whose top singular directions are frozen (OSF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OsfAdapter(Adapter):
    """Trains the second term of W = U_high S_high V_high + U_low S_low V_low.

    Attributes:
        frozen: share of min(o, i) directions, from the largest singular value down, that are frozen.
    """

    loads_with_peft: ClassVar[bool] = False

    policy: Literal["new", "continue"] = "continue"
    form: str = "osf"
    frozen: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.frozen < 1:
            raise ConfigError(f"frozen is a share of directions between 0 and 1, not {self.frozen}")

    @property
    def adds(self) -> bool:
        """Return True: a weight that has become another one has changed by a matrix."""
        return True

    @property
    def learning_rate(self) -> float:
        """Return 1e-4: what is trained are the weights themselves, as in full fine-tuning."""
        return 1e-4
