"""A method is a value: parts in roles. `compose` joins methods and parts and refuses what excludes one another."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from everlora.core.errors import ConfigError
from everlora.core.roles import Adapter, Consolidator, WeightPenalty

Regime = Literal["sequence", "joint", "frozen"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A composition of parts.

    Attributes:
        name: as typed; joined by ``+`` for compositions.
        regime: ``sequence`` learns one task after another; ``joint`` learns all at once (the multi-task reference);
            ``frozen`` learns nothing (zero-shot).
        adapter: what is trainable.
        consolidator: how a finished task joins the past.
        penalties: what pulls on the weights; they add up, so their order has no meaning.
    """

    name: str
    regime: Regime = "sequence"
    adapter: Adapter = field(default_factory=Adapter)
    consolidator: Consolidator = field(default_factory=Consolidator)
    penalties: tuple[WeightPenalty, ...] = ()

    def __post_init__(self) -> None:
        for part in self.penalties:
            if not 0 <= part.strength < float("inf"):  # NaN fails here too
                raise ConfigError(
                    f"the strength of the penalty {part.name!r} must be a finite number of at least 0, "
                    f"not {part.strength}"
                )

    @property
    def task_id_at_inference(self) -> bool:
        return self.consolidator.rule == "keep"

    @property
    def policy(self) -> str:
        """The adapter policy in words: what trains, and where the past stands."""
        if self.regime == "frozen":
            return "none"
        if self.regime == "joint":
            return "one adapter, all tasks at once"
        return {
            "continue": "continue: one adapter for all tasks",
            "sum": "new + folded: a fresh adapter per task on the folded sum of the past",
            "keep": "new + kept: a fresh adapter per task, chosen by task id",
        }[self.consolidator.rule]

    def named(self, name: str) -> Method:
        """The same composition under its own name."""
        return replace(self, name=name)

    def describe(self) -> dict[str, Any]:
        """The composition as plain data, for the run's record and its hash."""
        return {
            "name": self.name,
            "regime": self.regime,
            "adapter": self.adapter.policy,
            "consolidator": self.consolidator.rule,
            "penalties": [{"part": p.name, **{f.name: getattr(p, f.name) for f in fields(p)}} for p in self.penalties],  # type: ignore[arg-type]
        }


def compose(*methods: Method) -> Method:
    """Join methods into one.

    Single roles (regime, adapter, consolidator) must agree; penalties are concatenated and exact duplicates dropped.

    Raises:
        ConfigError: two methods claim a single role differently, or hold one penalty with different settings.
    """
    if not methods:
        raise ConfigError("a composition needs at least one method")
    first, *rest = methods
    for other in rest:
        for role in ("regime", "adapter", "consolidator"):
            if getattr(first, role) != getattr(other, role):
                raise ConfigError(
                    f"{first.name!r} and {other.name!r} exclude one another: the first has {getattr(first, role)!r} "
                    f"as {role}, the second {getattr(other, role)!r}; keep one of them"
                )
        for part in other.penalties:
            twin = next((p for p in first.penalties if p.name == part.name and p != part), None)
            if twin is not None:
                raise ConfigError(f"the penalty {part.name!r} is given twice, as {twin} and as {part}; keep one")
        new = tuple(part for part in other.penalties if part not in first.penalties)
        first = replace(first, name=f"{first.name}+{other.name}", penalties=first.penalties + new)
    return first
