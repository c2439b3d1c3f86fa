"""Defines what parts are given and what they return: strengths, the context of a task, evidence, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.stacked import StackedPast
from everlora.core.updates import LowRank, State, concatenate

View = Literal["sum", "merged"]
EvidenceKind = Literal["gradients", "fisher", "moment", "curvature"]


@dataclass(frozen=True, kw_only=True)
class AutoStrength:
    """Finds a strength instead of setting it: as much as brings a penalty to a share of the task's gradient.

    After n steps of a task λ_n = ρ · Σ_{m≤n} ‖∇L_m‖ / Σ_{m≤n} ‖∇Ω_m‖, with Ω the penalty at strength 1 and both norms
    over the adapters. Rescaling the weights, the energy or the rank changes Ω and with it λ, not the share. ρ is what
    a steady pull comes to; a pull that grows while the task's gradient falls, as usual, comes to two to four times ρ
    in the end (what it was stands in training.jsonl).

    >>> from everlora import parse
    >>> parse("ella(lam=auto)").penalties[0].strength.per_module
    False

    Attributes:
        rho: the share ρ.
        per_module: each adapted module finds its own λ from its own gradients, instead of one for all.
    """

    rho: float
    per_module: bool = False


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Finds a strength such that earlier tasks are predicted to lose no more than they may.

    The prediction is that of a part that inherits `PredictsRise`, in nats per row, summed over the t earlier tasks;
    what it may come to is t · nats. After every step μ ← max(0, μ + η (predicted / allowed − 1)): dual ascent on the
    Lagrangian L + μ (predicted / allowed − 1). A penalty that predicts itself has λ = μ / allowed; any other has the
    share ρ = μ of the task's gradient, see `AutoStrength`.

    >>> str(Budget(nats=0.01))
    'budget(nats=0.01)'

    Attributes:
        nats: what each earlier task's loss may rise by, per row, as predicted.
    """

    nats: float

    def __str__(self) -> str:
        return f"budget(nats={self.nats:g})"


@dataclass(frozen=True, kw_only=True)
class ProbedBudget(Budget):
    """Finds a strength as `Budget` does, with a prediction that rows of earlier tasks calibrate.

    See `everlora.training.calibration`.

    A class of its own, so that the record of a budget without probes, which tells runs apart, has no word of them.

    Attributes:
        probes: rows of each task that are stored, to be looked at and never trained again.
    """

    probes: int

    def __str__(self) -> str:
        return f"budget(nats={self.nats:g}, probes={self.probes})"


Strength = float | AutoStrength | Budget
LARGEST = 1e30
"""A strength above this times a gradient is no number of fp32, nor is one over a budget below its reciprocal."""


def check_strength(part: str, strength: Strength) -> None:
    """Refuse a strength that means nothing.

    >>> check_strength("ewc", 0.3)
    >>> check_strength("ewc", -1.0)
    Traceback (most recent call last):
        ...
    everlora.core.errors.ConfigError: the strength of the penalty 'ewc' must be a finite number of at least 0, not -1.0

    Raises:
        ConfigError: it is no finite number of at least 0, or a budget that allows nothing.
    """
    if isinstance(strength, Budget):
        if not 0 < strength.nats < float("inf"):
            raise ConfigError(f"the budget of {part!r} must be a finite number of nats above 0, not {strength.nats}")
        if not 1 / LARGEST < strength.nats < LARGEST:
            raise ConfigError(
                f"the budget of {part!r} must be between {1 / LARGEST:g} and {LARGEST:g} nats, not {strength.nats:g}"
            )
        if isinstance(strength, ProbedBudget) and strength.probes < 2:
            raise ConfigError(f"the probes of {part!r} are at least 2 rows of each task, not {strength.probes}")
        return
    value = strength.rho if isinstance(strength, AutoStrength) else strength
    if not 0 <= value < float("inf"):  # NaN fails here too
        raise ConfigError(f"the strength of the penalty {part!r} must be a finite number of at least 0, not {value}")
    if value > LARGEST:
        raise ConfigError(f"the strength of the penalty {part!r} must be at most {LARGEST:g}, not {value:g}")


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Holds Kronecker factors of a module's Fisher information: means over rows of products of G = ∂L/∂W.

    >>> import torch
    >>> Curvature(left=torch.eye(2), right=torch.eye(3)).trace
    tensor(2.)

    Attributes:
        left: mean G Gᵀ, (o, o).
        right: mean Gᵀ G, (i, i).
    """

    left: Tensor
    right: Tensor

    @property
    def trace(self) -> Tensor:
        """Return the trace of the Fisher information, mean ‖G‖²_F, (); that of ``right`` is the same."""
        return self.left.diagonal(dim1=-2, dim2=-1).sum(-1)


@dataclass(frozen=True, kw_only=True)
class SymmetricRoot:
    """Holds a wide symmetric matrix without negative eigenvalues by few columns: M ≈ root rootᵀ + diag(diagonal).

    The diagonal of M, and with it its trace, is exact.

    >>> import torch
    >>> one = SymmetricRoot(root=torch.tensor([[1.0], [2.0]]), diagonal=torch.zeros(2), error=torch.tensor(0.0))
    >>> one.root @ one.root.mT, one.trace
    (tensor([[1., 2.],
            [2., 4.]]), tensor(5.))

    Attributes:
        root: (n, m).
        diagonal: what ``root`` lacks of the diagonal of M, (n,).
        error: a bound of ‖M − root rootᵀ − diag(diagonal)‖_F, ().
    """

    root: Tensor
    diagonal: Tensor
    error: Tensor

    @property
    def trace(self) -> Tensor:
        """Return the trace of M, ()."""
        return self.root.square().sum() + self.diagonal.sum()


@dataclass(frozen=True, kw_only=True)
class CurvatureRoots:
    """Holds the factors of a `Curvature` of which at least one is wide: that one as a root.

    >>> import torch
    >>> wide = SymmetricRoot(root=torch.ones(4, 1), diagonal=torch.zeros(4), error=torch.tensor(0.0))
    >>> CurvatureRoots(left=4 * torch.eye(1), right=wide).right.trace
    tensor(4.)

    Attributes:
        left: mean G Gᵀ, (o, o).
        right: mean Gᵀ G, (i, i).
    """

    left: Tensor | SymmetricRoot
    right: Tensor | SymmetricRoot


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Holds what was measured of one module for a part that `NeedsEvidence`, on a few rows of a task.

    Only what the part wants to see is there, and nothing where the task has no rows.

    >>> Evidence().moment is None
    True

    Attributes:
        gradients: ∂L/∂W at the weights themselves, (n, o, i): n = 1 for the mean loss, or one per row.
        fisher: by live tensor, the mean over rows of the squared gradient of each row's own loss.
        moment: the second moment of the module's inputs, (1/n) Σ x xᵀ over tokens, (i, i).
        curvature: Kronecker factors of the Fisher information at the weights themselves.
        curvature_roots: the same in place of it, where the part's ``root_columns`` wants one of the two as a root.
    """

    gradients: Tensor | None = None
    fisher: State | None = None
    moment: Tensor | None = None
    curvature: Curvature | None = None
    curvature_roots: CurvatureRoots | None = None


NO_EVIDENCE = Evidence()
"""What a part sees that wants to see nothing."""


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """Holds what a part may know when a task begins, for ``L`` stacked modules of one shape.

    Modules whose memories of a part differ in shape (a basis grows unevenly) are handed over apart, so that what
    stands in one context can always be stacked.

    >>> import torch
    >>> past = LowRank(torch.ones(3, 1, 4), torch.ones(3, 2, 1))  # one task, three modules of shape (2, 4)
    >>> context = TaskContext(updates=(past, past))
    >>> context.factors().rank
    2
    >>> TaskContext().factors() is None
    True

    Attributes:
        updates: what every earlier task added, oldest first; under the policy ``continue`` the one adapter so far.
        start: where the live tensors start, if they go on from an earlier task; None if they are fresh.
        memory: what the part remembered when the last task ended; empty for parts that remember nothing.
        seed: for what the part draws, different for every run, task, part and group of modules.
        device: where what is prepared will be used; what is in here may be on another one.
    """

    updates: Sequence[LowRank] = ()
    start: Any = None
    memory: State = field(default_factory=dict)
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def factors(self) -> LowRank | None:
        """Return the sum of all updates as one update of rank R and scale 1; None on the first task."""
        if isinstance(self.updates, StackedPast):
            return self.updates.joined()
        return concatenate(self.updates) if self.updates else None
