"""Stacks modules of one shape, so that a part is one launch and not one per module, and finds penalties' strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from everlora.core.roles import (
    AutoStrength,
    Budget,
    GradientTransform,
    PenaltyGradient,
    PredictsRise,
    State,
    Strength,
    WeightPenalty,
)
from everlora.kernels import RATE

BLOCK = 2 * 2**20
"""Bytes of a penalty's largest constant that a CPU computes on at once: what a core's own cache holds."""
DEVICE_BLOCK = 2**30
"""Bytes of matrices that a penalty makes at once on other devices; those of one module, where they are more."""
NOTHING = 1e-30
"""A penalty's gradient of at most this norm is none: divided by it, λ would become infinite in fp32."""
ASCENT = 0.02
"""η, the step of the dual ascent on a budget."""
OVERDRAWN = 4.0
"""The excess over a budget counts for at most this in one step: one bad step does not stop learning."""


def scaled(gradient: State, lam: Tensor) -> State:
    """Return λ times stacked gradients; λ a scalar or (L,)."""
    return {name: g * lam.to(g.device, g.dtype).view(-1, *[1] * (g.ndim - 1)) for name, g in gradient.items()}


def added(a: State, b: State) -> State:
    """Return the sum of two gradients of the same tensors."""
    return {name: g + b[name] for name, g in a.items()}


def norms(gradient: State) -> Tensor:
    """Return the norms (L,) of stacked gradients, all tensors of a module together."""
    # In fp32: in bf16 a sum of thousands of squares stops growing when it is 256 times as large as the next one.
    squares = [g.float().square().flatten(1).sum(1) for g in gradient.values()]
    return torch.stack(squares).sum(0).sqrt()


def whole_norm(params: Sequence[Tensor]) -> Tensor:
    """Return the norm of the gradient of all these parameters together."""
    # fp32: in bf16 a sum of millions of squares loses the small ones.
    grads = [p.grad for p in params if p.grad is not None]
    return torch.stack([g.float().norm() for g in grads]).norm() if grads else torch.zeros(())


class Snapshot:
    """Holds copies of weights and task gradient of a group before a step, each stacked when it is first needed."""

    def __init__(self, kind: Any, params: Mapping[str, Sequence[Tensor]]) -> None:
        self._kind, self._params = kind, params

    @cached_property
    def weights(self) -> Any:
        """Return the live tensors, stacked; detached."""
        return self._kind.holding({key: torch.stack([p.detach() for p in each]) for key, each in self._params.items()})

    @cached_property
    def gradient(self) -> State:
        """Return the task's gradient, stacked like the weights, in fp32; 0 where there is none."""
        return {
            key: torch.stack([torch.zeros_like(p).float() if p.grad is None else p.grad.float() for p in each])
            for key, each in self._params.items()
        }


@dataclass(frozen=True)
class WeightedPenalty:
    """Holds the sum of the penalties of one group in one step, each times its strength.

    Attributes:
        value: λ Ω per module, all penalties together, (L,).
        gradient: λ ∂Ω, all penalties together; None if there are none.
        by_part: λ Ω of each penalty by its name, over all modules.
    """

    value: Tensor
    gradient: State | None
    by_part: Mapping[str, float]

    @property
    def norms(self) -> Tensor:
        """Return the norm of the gradient per module, (L,)."""
        return torch.zeros_like(self.value) if self.gradient is None else norms(self.gradient)


@dataclass
class StrengthController:
    """Holds the strength of one penalty as it is now.

    Attributes:
        strength: the number, or what finds it.
        predicts: whether the penalty itself predicts what a budget holds down.
        task, penalty: sums over the steps so far of the norms of the task's gradient and of the penalty's at strength
            1; scalars, or (L,) where every module finds its own.
        price: μ, the multiplier of a budget.
        allowed: nats that all earlier tasks together may lose, as far as they are predicted to.
        calibration: by which predictions are multiplied, since earlier ones were so much too low.
    """

    strength: Strength
    predicts: bool = False
    task: Tensor = field(default_factory=lambda: torch.zeros(()))
    penalty: Tensor = field(default_factory=lambda: torch.zeros(()))
    price: float = 0.0
    allowed: float = 0.0
    calibration: float = 1.0

    @classmethod
    def of(cls, part: WeightPenalty, calibration: float = 1.0) -> StrengthController:
        """Make the controller of a part."""
        return cls(part.strength, predicts=isinstance(part, PredictsRise), calibration=calibration)

    def update(self, task: Tensor, penalty: Tensor) -> None:
        """Take note of one more step."""
        # Sums over the task so far: the ratio of two single steps would jump with every batch.
        self.task, self.penalty = self.task + task, self.penalty + penalty

    def spend(self, predicted: float, tasks: int) -> None:
        """Take note of what the earlier tasks are predicted to lose, in nats per row, summed over them."""
        if isinstance(self.strength, Budget):
            self.allowed = self.strength.nats * tasks
            excess = min(self.calibration * predicted / self.allowed - 1, OVERDRAWN)
            # Never below 0: where less is lost than allowed, a negative price would reward forgetting.
            self.price = max(0.0, self.price + ASCENT * excess)

    @property
    def found(self) -> bool:
        """Return whether this strength is found and not given."""
        return isinstance(self.strength, AutoStrength | Budget)

    @property
    def lam(self) -> Tensor:
        """Return λ now; 0 as long as the penalty has no gradient."""
        if isinstance(self.strength, Budget):
            if self.predicts:
                # The gradient of what the budget holds, the calibrated prediction.
                price = self.calibration * self.price
                return torch.full_like(self.penalty, price / self.allowed if self.allowed else 0.0)
            share = self.price
        elif isinstance(self.strength, AutoStrength):
            share = self.strength.rho
        else:
            return torch.full_like(self.penalty, self.strength)
        pulls = self.penalty > NOTHING
        # Both sides of `where` are computed, so the denominator is made harmless where nothing pulls.
        return torch.where(pulls, share * self.task / torch.where(pulls, self.penalty, 1), 0)


def acting(penalties: tuple[WeightPenalty, ...]) -> list[WeightPenalty]:
    """Return those penalties that are not switched off, and those that predict for the budget of another."""
    # Left out, not multiplied by 0: a method at strength 0 is the method without its penalty, bit for bit.
    held = any(isinstance(part.strength, Budget) for part in penalties)
    off = (0, AutoStrength(rho=0))
    return [p for p in penalties if p.strength not in off or (held and isinstance(p, PredictsRise))]


@dataclass
class Group:
    """Holds modules of one shape, their live parameters, and each part's constants for them, made once a task."""

    names: tuple[str, ...]
    live: list[Any]
    penalties: list[tuple[WeightPenalty, State]] = field(default_factory=list)
    transforms: list[tuple[GradientTransform, State]] = field(default_factory=list)
    controllers: dict[str, StrengthController] = field(default_factory=dict)
    now: dict[str, State] = field(default_factory=dict)
    """Constants of this step, of transforms that have them, by their name."""
    params: dict[str, list[Tensor]] = field(init=False)
    """The live tensors by name, of one module after the other."""
    before: Snapshot = field(init=False)
    """How things stand before the next step."""

    def __post_init__(self) -> None:
        # The parameters themselves, which the optimiser moves in place; only a snapshot copies them.
        self.params = {key: [module.tensors[key] for module in self.live] for key in self.live[0].tensors}
        self.before = self._snapshot()

    @property
    def device(self) -> torch.device:
        return next(iter(self.live[0].tensors.values())).device

    def penalise(self, *, moved: bool = False) -> list[PenaltyGradient]:
        """Compute value and gradient of every penalty at strength 1; ``moved``: the weights were, outside a step."""
        if moved:
            self.before = self._snapshot()
        return [by_blocks(part, self.before.weights, state) for part, state in self.penalties]

    def weigh(self, found: Sequence[PenaltyGradient]) -> WeightedPenalty:
        """Add the penalties up, each times its λ."""
        gradient: State | None = None
        value, by_part = torch.zeros(len(self.names), device=self.device), {}
        # Weighted only now: a strength may be found from the very gradients that it multiplies.
        for (part, _), one in zip(self.penalties, found, strict=True):
            lam = self.controllers[part.name].lam.to(value.device)
            own = scaled(one.gradient, lam)
            gradient = own if gradient is None else added(gradient, own)
            value = value + lam * one.value
            by_part[part.name] = float((lam * one.value).sum())
        return WeightedPenalty(value, gradient, by_part)

    def shape(self, penalty: State | None) -> None:
        """Put the task's gradient and the penalties' through the transforms, and their sum into the parameters.

        Each by itself: transforms are linear, and a penalty that lies in a span which is projected out, however large,
        then leaves nothing behind, while in a sum its rounding would drown the task's gradient.
        """
        changes = [self.before.gradient] if self.acting("gradient") else []
        changes += [penalty] if penalty is not None else []
        for number, change in enumerate(self.transformed(changes, "gradient") if changes else []):
            self._write(change, add=number > 0 or not self.acting("gradient"))

    def end_gradient(self) -> None:
        """Let go of the stacks, but for the weights where a transform will look at the step that is taken now."""
        before, self.before = self.before, self._snapshot()
        if self.acting("update"):
            self.before.weights = before.weights  # the optimiser moves the parameters in place

    def shape_update(self) -> None:
        """Put the step that the optimiser has taken through the transforms that act on it."""
        began, now = self.before.weights.tensors, self._snapshot().weights.tensors
        (step,) = self.transformed([{key: now[key] - start for key, start in began.items()}], "update")
        for key, each in self.params.items():
            for k, p in enumerate(each):
                # In place, so that the optimiser's moments, which belong to this tensor, go on with it.
                p.copy_(began[key][k] + step[key][k])
        self.before = self._snapshot()

    def acting(self, on: str) -> bool:
        """Return whether a transform acts on the gradient, or on the update."""
        return any(transform.acts_on in (on, "both") for transform, _ in self.transforms)

    def transformed(self, changes: Sequence[State], on: str) -> Sequence[State]:
        """Put gradients, or updates, through the transforms that act on them, each by itself."""
        for transform, state in self.transforms:
            if transform.acts_on in (on, "both"):
                # Constants of this step, such as masks by the latest activations, stand in for those of the task.
                changes = transform.shape_each(changes, self.now.get(transform.name, state))
        return changes

    def _write(self, gradient: State, *, add: bool) -> None:
        for key, change in gradient.items():
            for k, p in enumerate(self.params[key]):
                # A factor that is held fixed has no gradient, and given one the optimiser would begin to move it.
                if p.grad is not None:
                    new = change[k].to(p.grad.dtype)
                    p.grad.add_(new) if add else p.grad.copy_(new)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.live[0], self.params)


def by_blocks(part: WeightPenalty, weights: Any, state: State, at_once: int | None = None) -> PenaltyGradient:
    """Compute a penalty of stacked modules (L, ...), few at once where it makes whole matrices.

    All at once make tens of megabytes, which a CPU's system maps and unmaps in every step, in more time than the
    arithmetic takes; on a GPU gigabytes. Only of penalties of which each module stands by itself (`by_module`).
    """
    count = len(first_of := next(iter(weights.tensors.values())))
    if at_once is None:
        bound, size = BLOCK, max((tensor[0].nbytes for tensor in state.values() if tensor.ndim > 2), default=0)
        if first_of.device.type != "cpu":
            made = 0 if RATE in state else part.matrices  # in tiles nothing is made
            bound, size = DEVICE_BLOCK, made and made * 4 * prod(weights.shape)
        at_once = max(1, bound // size) if size else count
    if at_once >= count or not part.by_module:
        return part.value_and_grad(weights, state)
    found = []
    for here in (slice(first, first + at_once) for first in range(0, count, at_once)):
        mine = {k: t[here] if t.ndim > 0 and len(t) == count else t for k, t in state.items()}
        found.append(part.value_and_grad(weights.holding({k: t[here] for k, t in weights.tensors.items()}), mine))
    gradient = {key: torch.cat([one.gradient[key] for one in found]) for key in found[0].gradient}
    return PenaltyGradient(value=torch.cat([one.value for one in found]), gradient=gradient)


def predicted_rise(groups: Sequence[Group], found: Sequence[Sequence[PenaltyGradient]]) -> tuple[float, int]:
    """Return the predicted rise of all earlier losses in sum, nats per row, and of how many; 0, 0 where none says."""
    predicted, tasks = 0.0, 0
    for group, each in zip(groups, found, strict=True):
        for (part, state), one in zip(group.penalties, each, strict=True):
            if isinstance(part, PredictsRise):
                predicted += float(one.value.sum())
                tasks = max(tasks, part.earlier_tasks(state))
    return predicted, tasks
