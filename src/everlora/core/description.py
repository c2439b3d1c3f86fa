"""Describes what a method is made of, as it stands in a run's record and on a method's card."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from everlora.core.plain import JsonObject


@dataclass(frozen=True)
class PartDescription:
    """Describes a part in its role.

    Attributes:
        role: which attribute of `everlora.core.method.Method` holds it.
        part: its name.
        settings: as plain data; those of what the part itself is made of, such as a strength to be found, nested.
    """

    role: str
    part: str
    settings: JsonObject

    @classmethod
    def of(cls, role: str, part: Any) -> PartDescription:
        """Describe a part, an instance of a dataclass with a ``name``."""
        # An option that was renamed is recorded under its first name: the record is hashed to know a run again.
        names = {one.name: one.metadata.get("recorded_as", one.name) for one in fields(part)}
        return cls(role, part.name, {names[name]: value for name, value in asdict(part).items()})


@dataclass(frozen=True)
class MethodDescription:
    """Describes a composition by the attributes of `everlora.core.method.Method`, its parts in one list."""

    name: str
    regime: str
    adapter: JsonObject
    consolidator: str
    mixing: str
    parts: tuple[PartDescription, ...]

    def plain(self) -> JsonObject:
        """Return what stands in run.yaml, and what the hash of a run is of."""
        found: JsonObject = {
            "name": self.name,
            "regime": self.regime,
            "adapter": self.adapter,
            "consolidator": self.consolidator,
            "initialiser": self._one("initialiser"),
            "penalties": [*self._all("penalties")],
            "transforms": [*self._all("transforms")],
            "merge": self._one("merge"),
        }
        # Roles that came later are named where they are filled, so that runs made before keep their identity.
        if outputs := self._all("outputs"):
            found["outputs"] = [*outputs]
        for role in ("rehearsal", "rule"):
            if filled := self._one(role):
                found[role] = filled
        if self.mixing != "proportional":
            found["mixing"] = self.mixing
        return found

    def _all(self, role: str) -> list[JsonObject]:
        return [{"part": one.part, **one.settings} for one in self.parts if one.role == role]

    def _one(self, role: str) -> JsonObject | None:
        return next(iter(self._all(role)), None)
