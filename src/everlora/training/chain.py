"""The gradient chain: what happens to the gradient between backward and the optimiser's step, and to the step itself.

    gradient of the task (reduced over accumulation and processes)
      → a rule for blocks of steps looks at it
      + gradients of the weight penalties, in closed form, once per step
      → transforms that act on the gradient, in order, on both alike
      → clip the sum by its norm
      → optimiser
      → transforms that act on the update: the step just taken
      → at the end of a block: the rule moves the weights

Everything here is a function of replicated tensors, so it is the same on every process and for every split of the
batch. ρ, the penalties' share, is ‖Σ penalty gradients‖ / ‖task gradient‖, both on the adapters alone (a head has
none of the first and much of the second), before transforms and clipping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from everlora.core.errors import TrainingError
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import AutoStrength, GradientTransform, PenaltyGradient, State, TaskContext, WeightPenalty
from everlora.core.updates import Updates, groups
from everlora.runtime.seeds import seed_for
from everlora.training.alarms import saturated
from everlora.training.blocks import BlockRunner
from everlora.training.group import Group, stacked
from everlora.training.probe import Probe
from everlora.training.strength import StrengthController, added, norms, scaled

TINY = 1e-20


@dataclass
class Chain(TrainerCallback):
    """Penalties, transforms and clipping as a Trainer callback.

    Attributes:
        params: all trainable parameters.
        task: name of the task, for messages.
        max_norm: clip the whole gradient to this norm; 0 leaves it.
        every: record per-module figures each so many steps.
    """

    params: list[nn.Parameter]
    task: str
    max_norm: float = 1.0
    every: int = 10
    groups: list[Group] = field(default_factory=list)
    controllers: dict[str, StrengthController] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recurrence: BlockRunner | None = None
    probe: Probe | None = None
    """What transforms see of the layers' outputs; None if none wants to."""
    _start: list[State] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        params: list[nn.Parameter],
        live: Updates,
        past: UpdateHistory,
        method: Method,
        *,
        task: str,
        max_norm: float,
        every: int,
        start: Updates | None = None,
        memory: Mapping[str, Mapping[str, State]] | None = None,
        seed: int = 0,
    ) -> Chain:
        """Prepare the constants of one task: dense views of the past are made here, once."""
        chain = cls(params=params, task=task, max_norm=max_norm, every=max(1, every))
        active = [p for p in method.penalties if p.strength != 0 and p.strength != AutoStrength(rho=0)]
        for names in groups(live):
            group = Group(names, [live[n] for n in names])
            updates = past.stacked(names) if len(past) and (active or method.transforms) else ()
            begin = None if start is None else stacked([start[n] for n in names])
            parts: tuple[WeightPenalty | GradientTransform, ...] = (*active, *method.transforms)
            for part in parts:
                if not {*getattr(part, "tensors", ())} <= group.live[0].tensors.keys():
                    continue
                kept = _remembered((memory or {}).get(part.name, {}), names)
                own_seed = seed_for(seed, task, part.name, *names)
                state = part.prepare(TaskContext(updates=updates, start=begin, memory=kept, seed=own_seed))
                if state is None:
                    continue
                state = {key: constant.to(group.device) for key, constant in state.items()}
                if isinstance(part, WeightPenalty):
                    own = isinstance(part.strength, AutoStrength) and part.strength.per_module
                    shared = chain.controllers.setdefault(part.name, StrengthController(part.strength))
                    group.controllers[part.name] = StrengthController(part.strength) if own else shared
                    group.penalties.append((part, state))
                else:
                    group.transforms.append((part, state))
            chain.groups.append(group)
        chain.warnings = saturated(chain.groups)
        return chain

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the penalties' gradients, shape, clip (transformers calls this after its own clipping, which is off)."""
        step = int(state.global_step) + 1
        task_norm = self._norm()
        if not torch.isfinite(task_norm):
            raise TrainingError(
                f"the loss became NaN or infinite at step {step} of task {self.task!r}; tasks learned before are "
                f"intact; lower --learning-rate, or look for broken rows"
            )
        self.latest = {"task_grad_norm": float(task_norm)}
        if self.recurrence:
            self.recurrence.before(step - 1)
        if self.probe is not None:
            self.probe.show(self.groups, step)
        self._shape(step)
        total = self._norm() if any(group.penalties or group.transforms for group in self.groups) else task_norm
        if not torch.isfinite(total):
            names = sorted({part.name for group in self.groups for part, _ in group.penalties})
            raise TrainingError(
                f"the penalty's gradient became NaN or infinite at step {step} of task {self.task!r}; tasks learned "
                f"before are intact; lower the strength of {', '.join(names)}"
            )
        if 0 < self.max_norm < total:
            for p in self.params:
                if p.grad is not None:
                    p.grad.mul_(self.max_norm / total)
        if any(group.acting("update") for group in self.groups):
            self._start = [dict(group.stacked().tensors) for group in self.groups]

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Shape the step that the optimiser has taken; close a block that ends with it."""
        for group, start in zip(self.groups, self._start, strict=False):
            if not group.acting("update"):
                continue
            now = group.stacked().tensors
            step = group.shaped({key: now[key] - before for key, before in start.items()}, "update")
            for k, site in enumerate(group.live):
                for key, p in site.tensors.items():
                    p.copy_(start[key][k] + step[key][k])
        if self.recurrence:
            now = int(state.global_step)
            self.recurrence.after(now, last=now + 1 == int(state.max_steps))

    def strengths(self) -> dict[str, float | dict[str, float]]:
        """The λ that each `AutoStrength` has found: one number, or one per module."""
        found: dict[str, Any] = {}
        for group in self.groups:
            for name, controller in group.controllers.items():
                if controller.found and controller.lam.ndim:
                    found.setdefault(name, {}).update(zip(group.names, controller.lam.tolist(), strict=True))
                elif controller.found:
                    found[name] = float(controller.lam)
        return found

    def _norm(self, only: set[int] | None = None) -> Tensor:
        """Norm of the whole gradient, or of that of some parameters, by identity."""
        grads = [p.grad for p in self.params if p.grad is not None and (only is None or id(p) in only)]
        return torch.stack([g.float().norm() for g in grads]).norm() if grads else torch.zeros(())

    def _shape(self, step: int) -> None:
        """Add penalties and let transforms act; record what the task and the penalties asked for."""
        recording = step % self.every == 0 or step == 1
        pulls = [
            [part.value_and_grad(group.stacked(), state) for part, state in group.penalties] for group in self.groups
        ]
        own_norm = self._norm({id(p) for group in self.groups for site in group.live for p in site.tensors.values()})
        self._update_strengths(pulls, own_norm)
        values: dict[str, float] = {}
        squares: list[Tensor] = []
        for group, found in zip(self.groups, pulls, strict=True):
            whole: State | None = None
            each = torch.zeros(len(group.names), device=group.device)
            for (part, _), pull in zip(group.penalties, found, strict=True):
                lam = group.controllers[part.name].lam.to(each.device)
                own = scaled(pull.gradient, lam)
                whole = own if whole is None else added(whole, own)
                each = each + lam * pull.value
                values[part.name] = values.get(part.name, 0.0) + float((lam * pull.value).sum())
            if recording:
                self._record(step, group, each, torch.zeros_like(each) if whole is None else norms(whole))
            if whole is not None:
                squares.append(norms(whole).square().sum())
            group.shape(whole)
        if values:
            share = torch.stack(squares).sum().sqrt() / own_norm.clamp_min(TINY)
            self.latest["adapter_grad_norm"] = float(own_norm)
            self.latest |= {f"penalty/{name}": value for name, value in values.items()} | {"rho": float(share)}
            self.latest |= {f"lam/{name}": lam for name, lam in self.strengths().items() if isinstance(lam, float)}

    def _update_strengths(self, pulls: Sequence[Sequence[PenaltyGradient]], task_norm: Tensor) -> None:
        """Let every dial that finds its strength take note of this step."""
        squares: dict[str, Tensor] = {}
        for group, found in zip(self.groups, pulls, strict=True):
            for (part, _), pull in zip(group.penalties, found, strict=True):
                controller, size = group.controllers[part.name], norms(pull.gradient)
                if controller.found and controller is not self.controllers[part.name]:
                    controller.update(norms(group.gradient()), size)
                elif controller.found:
                    squares[part.name] = squares.get(part.name, 0) + size.square().sum()
        for name, square in squares.items():
            self.controllers[name].update(task_norm, square.sqrt())

    def _record(self, step: int, group: Group, each: Tensor, pulls: Tensor) -> None:
        """Per module: the penalty, its share of the gradient, and the norm of the update."""
        own, sizes = norms(group.gradient()), torch.stack([site.norm() for site in group.live])
        for k, name in enumerate(group.names):
            self.records.append(
                {
                    "step": step,
                    "module": name,
                    "penalty": float(each[k]),
                    "rho": float(pulls[k]) / max(float(own[k]), TINY),
                    "update_norm": float(sizes[k]),
                }
            )


def _remembered(memory: Mapping[str, State], names: Sequence[str]) -> State:
    """What a part remembers of these modules, stacked; empty if it remembers nothing yet."""
    mine = [memory[name] for name in names if name in memory]
    return {key: torch.stack([one[key] for one in mine]) for key in mine[0]} if mine else {}
