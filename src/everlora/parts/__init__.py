"""Collects the parts of the package's methods, with the pure functions of tensors that they are made of.

Parts are values: take them as they are in a method of your own, or inherit one and change a method of it.

>>> from everlora.parts import EnergyOverlap
>>> EnergyOverlap(lam=0.5).strength
0.5

    weight penalties       `EnergyOverlap` (ELLA), `Orthogonality`, `FactorNorm` (O-LoRA), `SignConflict` (PS-LoRA),
                           `Sparsity` (N-LoRA), `Quadratic` (EWC), `OrthonormalTriplets` (LB-CL),
                           `KroneckerCurvature` (K-FAC; with λ = 0 it predicts for the budget of another)
    output penalties       `Distil` (LwF), `PromptDivergence` (LFPT5)
    gradient transforms    `ProjectOut` (LB-CL), `MagnitudeMask` (MIGU), `Restoration` (DATA)
    initialisers           `SensitivityBlend` (LB-CL), `FeatureStart` (InfLoRA), `SlowMerge` (SLAO), `CopyLayers`
    rehearsal, step rules  `Replay`, `PseudoSamples` (LFPT5), `Fusion` (Recurrent-KIF)
    merges                 `LargestMagnitude` (PS-LoRA), `Mean`, `Ties`, `Dare`

    functions              `energy`, `energy_overlap`, `shrink`, `interference`, `interference_bound`, `orthogonality`,
                           `sign_conflict`, `extend_basis`, `project_off`, `complement`, `project_out`, `distillation`,
                           `ties`, `drop`, `trim`, `larger`, `read_strength`

What stands in ``__all__`` is stable; further names in the modules are internal.
"""

from everlora.parts.blend import SensitivityBlend
from everlora.parts.copy_layers import CopyLayers
from everlora.parts.distil import Distil, distillation
from everlora.parts.features import FeatureStart, complement, extend_basis, project_off
from everlora.parts.forms_dual import Restoration
from everlora.parts.fusion import Fusion
from everlora.parts.kronecker import KroneckerCurvature
from everlora.parts.masks import MagnitudeMask
from everlora.parts.merges import Dare, LargestMagnitude, Mean, Ties, drop, larger, ties, trim
from everlora.parts.penalties import (
    EnergyOverlap,
    FactorNorm,
    Orthogonality,
    energy,
    energy_overlap,
    interference,
    interference_bound,
    orthogonality,
    shrink,
)
from everlora.parts.pseudo import PromptDivergence, PseudoSamples
from everlora.parts.quadratic import Quadratic
from everlora.parts.replay import Replay
from everlora.parts.signs import SignConflict, sign_conflict
from everlora.parts.slow import SlowMerge
from everlora.parts.sparsity import Sparsity
from everlora.parts.strengths import StrengthOption, read_strength
from everlora.parts.subspace import OrthonormalTriplets, ProjectOut, project_out

__all__ = [
    "CopyLayers",
    "Dare",
    "Distil",
    "EnergyOverlap",
    "FactorNorm",
    "FeatureStart",
    "Fusion",
    "KroneckerCurvature",
    "LargestMagnitude",
    "MagnitudeMask",
    "Mean",
    "Orthogonality",
    "OrthonormalTriplets",
    "ProjectOut",
    "PromptDivergence",
    "PseudoSamples",
    "Quadratic",
    "Replay",
    "Restoration",
    "SensitivityBlend",
    "SignConflict",
    "SlowMerge",
    "Sparsity",
    "StrengthOption",
    "Ties",
    "complement",
    "distillation",
    "drop",
    "energy",
    "energy_overlap",
    "extend_basis",
    "interference",
    "interference_bound",
    "larger",
    "orthogonality",
    "project_off",
    "project_out",
    "read_strength",
    "shrink",
    "sign_conflict",
    "ties",
    "trim",
]
