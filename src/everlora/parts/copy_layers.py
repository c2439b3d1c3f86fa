"""Copies the newest adapter's upper layers into the new one: the start of the study that motivates LB-CL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from everlora.core.errors import ConfigError
from everlora.core.roles import NO_EVIDENCE, Evidence, Initialiser, Needs, State
from everlora.core.updates import LowRank, top_blocks


@dataclass(frozen=True, kw_only=True)
class CopyLayers(Initialiser):
    """Starts the last blocks of a fresh adapter as copies of the task before (LB-CL slides, layer replacement).

    Attributes:
        top_layers: how many blocks, counted from the output; None copies all.
    """

    name: ClassVar[str] = "copy_layers"
    needs: ClassVar[Needs] = Needs(fresh_adapter=True)
    top_layers: int | None = None

    def __post_init__(self) -> None:
        if self.top_layers is not None and self.top_layers < 1:
            raise ConfigError(f"top_layers of {self.name!r} counts blocks from the top, not {self.top_layers}")

    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(sites) if self.top_layers is None else top_blocks(sites, self.top_layers)

    def start(
        self,
        fresh: LowRank,
        updates: Sequence[LowRank],
        evidence: Evidence = NO_EVIDENCE,
        memory: State | None = None,
    ) -> LowRank:
        return updates[-1]
