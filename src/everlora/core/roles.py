"""The roles that parts play. A part is a frozen, keyword-only dataclass: it is its configuration, without state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from everlora.core.sites import LowRank

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Value and gradient of a weight penalty for ``L`` stacked modules.

    Attributes:
        value: penalty per module, already times its strength, (L,).
        A: gradient with respect to the live A, (L, r, i).
        B: gradient with respect to the live B, (L, o, r).
    """

    value: Tensor
    A: Tensor
    B: Tensor


@runtime_checkable
class WeightPenalty(Protocol):
    """A term of the objective that depends on weights alone, never on the batch.

    The engine adds its gradient once per optimiser step, after accumulation and reduction over processes and before
    clipping, so that the strength means the same for every split of a batch.
    """

    name: ClassVar[str]

    @property
    def strength(self) -> float:
        """The coefficient that scales everything; 0 switches the part off."""
        ...

    def prepare(self, past: LowRank | None) -> State | None:
        """Constants of one task for one group of modules; None if there is nothing to pull on (no past, say)."""
        ...

    def pull(self, live: LowRank, state: State) -> Pull:
        """Value and closed-form gradient at ``live``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which low-rank update a task trains.

    Attributes:
        policy: ``new``, a fresh pair with B = 0 on top of everything learned before; or ``continue``, one pair that
            every task trains on.
    """

    policy: Literal["new", "continue"] = "new"


@dataclass(frozen=True, kw_only=True)
class Consolidator:
    """How a finished update joins the past.

    Attributes:
        rule: ``sum`` folds it into the weights used from now on; ``continue`` keeps the one adapter as it is;
            ``keep`` leaves one adapter per task side by side and chooses by task id.
    """

    rule: Literal["sum", "continue", "keep"] = "sum"

    def kept(self, tasks: int, adapter: int) -> int:
        """Elements of adapters that must be kept after ``tasks`` tasks if one adapter has ``adapter`` elements."""
        return adapter if self.rule == "continue" else tasks * adapter
