"""What a part does where nobody sets anything: the same as the methods that are made of it, whose cards say why."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from typing import Any

import pytest

from everlora.core import adapter, roles
from everlora.core.expressions import declared_methods, parse
from everlora.parts import (
    blend,
    copy_layers,
    decay,
    distil,
    features,
    forms_directions,
    forms_dual,
    forms_full,
    forms_osf,
    forms_prompt,
    fusion,
    kronecker,
    masks,
    merges,
    penalties,
    pseudo,
    quadratic,
    replay,
    schedules,
    signs,
    slow,
    sparsity,
    subspace,
)

MODULES = (
    blend, copy_layers, decay, distil, features, forms_directions, forms_dual, forms_full, forms_osf, forms_prompt,
    fusion, kronecker, masks, merges, penalties, pseudo, quadratic, replay, schedules, signs, slow, sparsity,
    subspace,
)  # fmt: skip
CLASSES: list[Any] = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
        and issubclass(value, roles.Part | adapter.Adapter)
    },
    key=lambda one: one.__name__,
)

BARE: dict[str, dict[str, object]] = {
    "EnergyOverlap": {"lam": 1.0},  # methods find the strength of these; bare they pull with a weight of one
    "KroneckerCurvature": {"lam": 1.0},
    "SignConflict": {"lam": 1.0},
    "UpdateDecay": {"lam": 1.0},
    "OrthonormalTriplets": {"lam": 0.1},  # the methods of one paper take a tenth of it
    "SensitivityBlend": {"sigma": "with"},  # all of a triplet; the methods of one paper leave σ out
    "Prompt": {"phrase": ""},  # a phrase is the method's to choose
    "Restoration": {"rate": 1e-5, "every": 1},  # is off in its method's defaults
    # A schedule of one factor of one changes nothing, and O-LoRA's λ₂ is off unless it is set.
    "FactorNorm": {"lam": 0.0},
    "FactorNormInTurn": {"lam": 0.0, "schedule": (1.0,)},
    "OrthogonalityInTurn": {"lam": 0.5, "side": "A", "norm": "l1", "schedule": (1.0,)},
}
"""Where a part does otherwise than every method that has it, and where no method has it by default."""


@cache
def in_methods() -> dict[type, list[object]]:
    """Every part and adapter of all methods at their defaults, by class."""
    found: dict[type, list[object]] = {}
    for name in declared_methods():
        method = parse(name)
        for part in (*method.parts(), method.adapter):
            found.setdefault(type(part), []).append(part)
    return found


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_defaults_are_those_of_a_method_or_listed(kind: Any) -> None:
    bare, used = BARE.get(kind.__name__, {}), in_methods().get(kind, [])
    for field in fields(kind):
        if field.default is MISSING:
            continue
        if field.name in bare:
            assert field.default == bare[field.name], field.name
            assert field.default not in [getattr(part, field.name) for part in used], "list what differs alone"
        else:
            assert field.default in [getattr(part, field.name) for part in used], field.name


def test_all_parts_are_looked_at() -> None:
    assert in_methods().keys() - set(CLASSES) == {adapter.Adapter}


NEEDS: dict[str, set[str]] = {
    # Their formulas are of one task's own update, or of a start; an adapter that goes on has neither.
    "fresh_adapter": {
        "CopyLayers", "FeatureStart", "Orthogonality", "OrthogonalityInTurn", "ProjectOut", "SensitivityBlend",
        "Sparsity",
    },
    "continued_adapter": {"Quadratic"},  # holds one adapter where earlier tasks left it
    "svd_form": {"OrthonormalTriplets", "SensitivityBlend"},  # speak of singular values
    # Look at rows, answers, or one tensor at a time, whatever is trained.
    "any_form": {
        "Distil", "Fusion", "MagnitudeMask", "Orthonormality", "PromptDivergence", "PseudoSamples", "Quadratic",
        "Replay", "Restoration",
    },
    "tensors": {"Orthonormality"},  # of the pools of gates
    "order": {"MagnitudeMask"},  # masks before projections
    "first_task": {"FeatureStart"},
    "cumulative_memory": {"KroneckerCurvature", "Quadratic", "SlowMerge"},  # sums over tasks
    "memory_at_most": {"FeatureStart"},  # how many directions depends on the data
    "stored_rows": {"PseudoSamples"},  # stores none
}  # fmt: skip
"""By field of `Needs`, the parts that set it."""


def test_what_parts_need() -> None:
    parts, usual = [kind for kind in CLASSES if issubclass(kind, roles.Part)], roles.Needs()
    for name in (field.name for field in fields(roles.Needs)):
        found = {kind.__name__ for kind in parts if getattr(kind.needs, name) != getattr(usual, name)}
        assert found == NEEDS[name], name


def test_every_part_has_one_role() -> None:
    parts = [kind for kind in CLASSES if issubclass(kind, roles.Part)]
    assert len(parts) >= 20
    assert {sum(issubclass(kind, role) for role in roles.Part.roles) for kind in parts} == {1}
