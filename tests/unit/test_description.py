"""What stands in a run's record: roles that came later only where they are filled, options under their first names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from everlora.core.description import MethodDescription, PartDescription


@dataclass(frozen=True, kw_only=True)
class Strength:
    rho: float


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A part of which one option was renamed."""

    name: ClassVar[str] = "pull"
    lam: float | Strength = 0.5
    only: bool = field(default=False, metadata={"recorded_as": "alone"})


def described(*parts: PartDescription, mixing: str = "proportional") -> MethodDescription:
    return MethodDescription("mine", "sequence", {"form": "plain"}, "sum", mixing, parts)


BARE: dict[str, Any] = {
    "name": "mine",
    "regime": "sequence",
    "adapter": {"form": "plain"},
    "consolidator": "sum",
    "initialiser": None,
    "penalties": [],
    "transforms": [],
    "merge": None,
}
"""Hashes of runs that were made before other roles were there are of these keys."""


def test_a_part_is_described_by_its_settings() -> None:
    found = PartDescription.of("penalties", Pull(lam=Strength(rho=0.1), only=True))
    assert found == PartDescription("penalties", "pull", {"lam": {"rho": 0.1}, "alone": True})


def test_a_method_without_parts() -> None:
    assert described().plain() == BARE


def test_every_role_has_its_parts_and_no_others() -> None:
    roles = ("initialiser", "penalties", "transforms", "merge", "outputs", "rehearsal", "rule")
    parts = {role: PartDescription(role, f"part of {role}", {"x": 1}) for role in roles}
    for role, part in parts.items():
        plain = {"part": f"part of {role}", "x": 1}
        assert described(part).plain() == {
            **BARE,
            role: [plain] if role in ("penalties", "transforms", "outputs") else plain,
        }
    second = PartDescription("penalties", "second", {})
    both = described(parts["penalties"], second).plain()["penalties"]
    assert both == [{"part": "part of penalties", "x": 1}, {"part": "second"}]


def test_a_mixture_is_recorded_where_it_is_not_the_usual_one() -> None:
    assert described(mixing="equal").plain() == {**BARE, "mixing": "equal"}
