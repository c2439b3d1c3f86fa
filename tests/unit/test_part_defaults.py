"""What a part does where nobody sets anything: the same as the methods that are made of it, whose cards say why."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

import pytest

from everlora.core import adapter, roles
from everlora.core.errors import ConfigError
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
    "Sparsity": {"lam": 0.4},  # its authors'; the method finds one
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


# By form: as the papers' own code has it, or as dev rows chose between a few, see `learning_rate` of each form.
RATES = {
    "plain": 3e-3, "svd": 1e-2, "dual": 3e-3, "directions": 3e-3, "full": 1e-4, "osf": 1e-4,
    "prompt": 3e-2, "prompt-pool": 3e-2, "prompt-chain": 3e-2,
}  # fmt: skip


def test_the_rate_of_a_run_that_names_none_is_that_of_what_it_trains() -> None:
    adapters = [parse(name).adapter for name in declared_methods()]
    assert {one.form: one.learning_rate for one in adapters} == RATES


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


# --- options at their edges ------------------------------------------------------------------------------------------

INF, NAN, ONE = float("inf"), float("nan"), {"good": [1], "bad": [0, -1]}
SHARE = {"good": [0.0, 1.0], "bad": [-0.01, 1.01, NAN]}
BELOW_ONE = {"good": [0.0, 0.99], "bad": [-0.01, 1.0, NAN]}
FINITE = {"good": [0.0, 1e9], "bad": [-0.01, INF, NAN]}
ABOVE_ZERO = {"good": [1e-9, 1e9], "bad": [0.0, INF, NAN]}
DENSITY = {"good": [1e-9, 1.0], "bad": [0.0, 1.01, NAN]}
EDGES: dict[Any, dict[str, dict[str, list[Any]]]] = {
    blend.SensitivityBlend: {"samples": ONE, "top_layers": ONE},
    copy_layers.CopyLayers: {"top_layers": ONE},
    distil.Distil: {"beta": FINITE, "tau": ABOVE_ZERO},
    features.FeatureStart: {"samples": ONE, "tasks": ONE, "energy": DENSITY},
    forms_dual.DualAdapter: dict.fromkeys(("low", "high", "components", "blocks"), ONE),
    forms_dual.Restoration: {"rate": SHARE, "every": ONE},
    forms_osf.OsfAdapter: {"frozen": {"good": [1e-9, 0.99], "bad": [0.0, 1.0, NAN]}},
    forms_prompt.PromptPool: {
        "size": {"good": [3], "bad": [2, 0]},  # no fewer than the three that an example draws
        "length": ONE,
        "top": {"good": [1, 10], "bad": [0, 11]},
        "pull": FINITE,
    },
    forms_prompt.PromptChain: {"length": ONE, "mlp": {"good": [0], "bad": [-1]}},
    forms_prompt.Prompt: {"length": ONE, "frequent": ONE},
    fusion.Fusion: {
        **dict.fromkeys(("inner", "outer"), ONE),
        **dict.fromkeys(("quantile", "beta1", "beta2"), BELOW_ONE),
        "temperature": ABOVE_ZERO,
    },
    kronecker.KroneckerCurvature: dict.fromkeys(("samples", "store_rank"), ONE),
    masks.MagnitudeMask: {"tau": SHARE},
    merges.Ties: {"density": DENSITY},
    merges.Dare: {"density": DENSITY, "seed": {"good": [0, 2**63 - 1], "bad": [-1, 2**63]}},
    penalties.EnergyOverlap: {"store_rank": ONE},
    pseudo.PseudoSamples: {
        **dict.fromkeys(("per_class", "tries", "top_k", "length"), ONE),
        "eta": FINITE,
        "kappa": BELOW_ONE,
    },
    quadratic.Quadratic: {"samples": ONE, "gamma": SHARE},
    replay.Replay: {"ratio": SHARE},
    signs.SignConflict: {"sharpness": FINITE},
}
"""By part and option: what is still taken, and what is just beyond."""


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind, options in EDGES.items() for option in options])
def test_an_option_is_taken_up_to_its_edge_and_refused_beyond(kind: Any, option: str) -> None:
    for value in EDGES[kind][option]["good"]:
        assert getattr(kind(**{option: value}), option) == value
    for value in EDGES[kind][option]["bad"]:
        with pytest.raises(ConfigError, match=re.escape(str(value))):
            kind(**{option: value})


def test_every_part_that_checks_its_options_is_looked_at_up_to_their_edges() -> None:
    checking = {kind for kind in CLASSES if "__post_init__" in vars(kind)}
    assert checking == set(EDGES)


def test_every_part_has_one_role() -> None:
    parts = [kind for kind in CLASSES if issubclass(kind, roles.Part)]
    assert len(parts) >= 20
    assert {sum(issubclass(kind, role) for role in roles.Part.roles) for kind in parts} == {1}


INF, NAN = float("inf"), float("nan")
COUNTS: dict[type, tuple[str, ...]] = {
    blend.SensitivityBlend: ("samples", "top_layers"),
    copy_layers.CopyLayers: ("top_layers",),
    features.FeatureStart: ("samples", "tasks"),
    forms_dual.DualAdapter: ("low", "high", "components", "blocks"),
    forms_dual.Restoration: ("every",),
    forms_prompt.Prompt: ("length", "frequent"),
    forms_prompt.PromptChain: ("length",),
    fusion.Fusion: ("inner", "outer"),
    kronecker.KroneckerCurvature: ("samples", "store_rank"),
    penalties.EnergyOverlap: ("store_rank",),
    pseudo.PseudoSamples: ("per_class", "tries", "top_k", "length"),
    quadratic.Quadratic: ("samples",),
}
"""Settings that count something, of which there must be one."""
LIMITS: list[tuple[type, str, tuple[float, ...], tuple[float, ...]]] = [
    *((kind, name, (1, 2), (0, -1)) for kind, names in COUNTS.items() for name in names),
    (distil.Distil, "beta", (0.0, 0.5), (-0.1, INF, NAN)),
    (distil.Distil, "tau", (0.1, 1.0), (0.0, -1.0, INF, NAN)),
    (features.FeatureStart, "energy", (0.1, 1.0), (0.0, 1.1, NAN)),
    (forms_dual.Restoration, "rate", (0.0, 1.0), (-0.1, 1.1, NAN)),
    (forms_osf.OsfAdapter, "frozen", (0.01, 0.99), (0.0, 1.0, NAN)),
    (forms_prompt.PromptPool, "top", (1, 10), (0, 11)),
    (forms_prompt.PromptPool, "size", (3, 4), (0, 2)),
    (forms_prompt.PromptPool, "length", (1, 2), (0,)),
    (forms_prompt.PromptPool, "pull", (0.0, 9.0), (-0.1, INF, NAN)),
    (forms_prompt.PromptChain, "mlp", (0, 1), (-1,)),
    *((fusion.Fusion, name, (0.0, 0.99), (-0.1, 1.0, NAN)) for name in ("quantile", "beta1", "beta2")),
    (fusion.Fusion, "temperature", (0.1, 9.0), (0.0, INF, NAN)),
    (masks.MagnitudeMask, "tau", (0.0, 1.0), (-0.1, 1.1, NAN)),
    *((kind, "density", (0.1, 1.0), (0.0, 1.1, NAN)) for kind in (merges.Ties, merges.Dare)),
    (merges.Dare, "seed", (0, 2**63 - 1), (-1, 2**63)),
    (pseudo.PseudoSamples, "eta", (0.0, 9.0), (-0.1, INF, NAN)),
    (pseudo.PseudoSamples, "kappa", (0.0, 0.99), (-0.1, 1.0, NAN)),
    (quadratic.Quadratic, "gamma", (0.0, 1.0), (-0.1, 1.1, NAN)),
    (replay.Replay, "ratio", (0.0, 1.0), (-0.1, 1.1, NAN)),
    (signs.SignConflict, "sharpness", (0.0, 9.0), (-0.1, INF, NAN)),
]


@pytest.mark.parametrize(("kind", "name", "fine", "wrong"), LIMITS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_setting_may_be_what_it_can_mean(kind: Any, name: str, fine: Any, wrong: Any) -> None:
    for value in fine:
        assert getattr(kind(**{name: value}), name) == value
    for value in wrong:
        with pytest.raises(ConfigError) as refused:
            kind(**{name: value})
        (line,) = str(refused.value).splitlines()
        assert str(value) in line


def test_what_is_trained_and_how_fast() -> None:
    """Whole weights go slowly and prompts fast; a pool has a loss of its own if keys are pulled at all."""
    pool = forms_prompt.PromptPool
    assert forms_full.FullWeights().learning_rate == forms_osf.OsfAdapter().learning_rate == 1e-4
    soft: Any = (pool(), forms_prompt.PromptChain(), forms_prompt.Prompt(phrase="x"))
    assert {one.learning_rate for one in soft} == {3e-2}
    assert forms_osf.OsfAdapter().adds
    assert (pool(pull=0.1).own_loss, pool(pull=0.0).own_loss) == (True, False)
