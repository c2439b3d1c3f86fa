"""Defines the roles that parts play, the abilities that they may have, and what they are given and return.

A part is a frozen, keyword-only dataclass: it is its configuration, without state. It inherits one role and any
number of abilities, and its class is checked when it is made (`everlora.core.roles.contract`).
"""

from everlora.core.roles.abilities import (
    ActivationSource,
    BoundsMemoryError,
    GenerativeReplay,
    GrowsWithPast,
    HasCapacity,
    HasEnergy,
    HasMemory,
    NeedsActivations,
    NeedsEvidence,
    PostProcesses,
    PredictsRise,
    ReconstructsPast,
)
from everlora.core.roles.blocks import BlockStep, plan
from everlora.core.roles.contract import Needs, Part
from everlora.core.roles.primary import (
    GradientTransform,
    Initialiser,
    Merge,
    OutputPenalty,
    Rehearsal,
    StepRule,
    WeightPenalty,
)
from everlora.core.roles.values import (
    NO_EVIDENCE,
    AutoStrength,
    Budget,
    Curvature,
    CurvatureRoots,
    Evidence,
    EvidenceKind,
    ProbedBudget,
    Strength,
    SymmetricRoot,
    TaskContext,
    View,
    check_strength,
)
from everlora.core.updates import PenaltyGradient, State

__all__ = [
    "NO_EVIDENCE",
    "ActivationSource",
    "AutoStrength",
    "BlockStep",
    "BoundsMemoryError",
    "Budget",
    "Curvature",
    "CurvatureRoots",
    "Evidence",
    "EvidenceKind",
    "GenerativeReplay",
    "GradientTransform",
    "GrowsWithPast",
    "HasCapacity",
    "HasEnergy",
    "HasMemory",
    "Initialiser",
    "Merge",
    "Needs",
    "NeedsActivations",
    "NeedsEvidence",
    "OutputPenalty",
    "Part",
    "PenaltyGradient",
    "PostProcesses",
    "PredictsRise",
    "ProbedBudget",
    "ReconstructsPast",
    "Rehearsal",
    "State",
    "StepRule",
    "Strength",
    "SymmetricRoot",
    "TaskContext",
    "View",
    "WeightPenalty",
    "check_strength",
    "plan",
]
