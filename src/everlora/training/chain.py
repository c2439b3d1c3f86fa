"""Shows one training step on one page: what happens to the gradient before the optimiser, and to its step after it.

    Trainer            forward and backward of every micro-batch        (`everlora.training.trainer.ClTrainer`)
      │                  loss = task's tokens + output penalties
      ▼
    p.grad             the task's gradient, reduced over accumulation and processes
      │                ┐
      ├─ step rule     │ sees weights and task gradient as one vector
      ├─ probe         │ gives transforms the magnitudes of outputs in this step
      ├─ penalties     │ value and gradient of each, in closed form, at strength 1
      ├─ strengths     │ λ as given, or found from both norms, or a budget     `Chain.on_pre_optimizer_step`
      ├─ sum           │ Σ λ ∂Ω
      ├─ transforms    │ on the task's gradient and on Σ λ ∂Ω, both alike
      ├─ clip          │ the norm of the whole
      ▼                ┘
    optimiser          takes its step
      │                ┐
      ├─ transforms    │ that act on the update: the step just taken          `Chain.on_optimizer_step`
      └─ step rule     ┘ moves the weights where a block ends

Modules of one shape are one stack (`everlora.training.group.Group`), which is made of weights and gradient once per
step. Everything here is a function of replicated tensors, so it is the same on every process and for every split of
the batch. ρ, the penalties' share, is ‖Σ λ ∂Ω‖ / ‖task gradient‖, both on the adapters alone (a head has none of the
first and much of the second), before transforms and clipping.
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
from everlora.core.roles import (
    AutoStrength,
    GradientTransform,
    GrowsWithPast,
    PenaltyGradient,
    State,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import Updates, groups, stack
from everlora.runtime.progress import spent
from everlora.runtime.seeds import seed_for
from everlora.training.alarms import saturated
from everlora.training.blocks import BlockRunner
from everlora.training.group import (
    Group,
    StrengthController,
    WeightedPenalty,
    acting,
    norms,
    predicted_rise,
    whole_norm,
)
from everlora.training.memory import by_memory, stacked
from everlora.training.probe import Probe

TINY = 1e-20


@dataclass(frozen=True)
class ModuleRow:
    """Holds a row of modules.jsonl: what the penalties came to in one module at one step.

    Attributes:
        step, module: when and where.
        penalty: sum of their values.
        rho: norm of their gradient over that of the task's.
        update_norm: of the update B A.
    """

    step: int
    module: str
    penalty: float
    rho: float
    update_norm: float


@dataclass
class Chain(TrainerCallback):
    """Applies penalties, transforms and clipping, as a callback of the Trainer.

    Attributes:
        params: all trainable parameters.
        adapter: those of them that belong to modules; a classification head's do not.
        task: name of the task, for messages.
        max_norm: clip the whole gradient to this norm; 0 leaves it.
        every: record per-module figures each so many steps.
        probe: what transforms see of the layers' outputs; None if none wants to.
    """

    params: list[nn.Parameter]
    task: str
    max_norm: float = 1.0
    every: int = 10
    adapter: list[nn.Parameter] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    controllers: dict[str, StrengthController] = field(default_factory=dict)
    records: list[ModuleRow] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recurrence: BlockRunner | None = None
    probe: Probe | None = None

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
        calibration: float = 1.0,
    ) -> Chain:
        """Prepare the constants of one task: dense views of the past are made here, once."""
        chain = cls(params=params, task=task, max_norm=max_norm, every=max(1, every))
        parts: tuple[WeightPenalty | GradientTransform, ...] = (*acting(method.penalties), *method.transforms)
        memories = {part.name: (memory or {}).get(part.name, {}) for part in parts}
        # A stack needs one shape, of weights and of what is remembered: bases that grew unevenly part here.
        for names in (some for alike in groups(live) for some in by_memory(alike, memories)):
            group = Group(names, [live[n] for n in names])
            updates = past.stacked(names) if len(past) and parts else ()
            begun: list[Any] = [] if start is None else [start[n] for n in names]
            begin = stack(begun) if begun else None
            for part in parts:
                # A part for pairs A, B has nothing to do where something else is trained.
                if not {*part.needs.tensors} <= group.live[0].tensors.keys():
                    continue
                # Named by what it is for, and no count: draws stay the same whatever other parts and groups there are.
                own_seed = seed_for(seed, task, part.name, *names)
                held = stacked(memories[part.name], names)
                here = TaskContext(updates=updates, start=begin, memory=held, seed=own_seed, device=group.device)
                state = past.grown(part, names, part.extend) if isinstance(part, GrowsWithPast) else part.prepare(here)
                if state is None:
                    continue
                # Parts compute from a past that is on the CPU; what they made of it is moved once a task, and not at
                # every step.
                state = {key: constant.to(group.device) for key, constant in state.items()}
                if isinstance(part, WeightPenalty):
                    # All groups share one controller, as ρ is a share over the adapter, unless modules find their own.
                    own = isinstance(part.strength, AutoStrength) and part.strength.per_module
                    shared = chain.controllers.setdefault(part.name, StrengthController.of(part, calibration))
                    group.controllers[part.name] = StrengthController.of(part) if own else shared
                    group.penalties.append((part, state))
                else:
                    group.transforms.append((part, state))
            chain.groups.append(group)
        adapter = {id(p) for update in live.values() for p in update.tensors.values()}
        chain.adapter = [p for p in params if id(p) in adapter]
        chain.warnings = saturated(chain.groups)
        return chain

    @spent("penalties")
    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Do all that stands between backward and the optimiser (transformers' own clipping before it is off)."""
        step = int(state.global_step) + 1
        if all(p.grad is None for p in self.params):
            raise TrainingError(
                f"no parameter has a gradient at step {step} of task {self.task!r}, so nothing would be learned; "
                f"tasks learned before are intact; leave out engines that hold gradients elsewhere (DeepSpeed, "
                f"FSDP) and quantised weights that this device cannot train on"
            )
        # Looked at before anything is added: what is not finite here is the loss's fault, and not a penalty's.
        task_norm = whole_norm(self.params)
        if not torch.isfinite(task_norm):
            raise TrainingError(
                f"the loss became NaN or infinite at step {step} of task {self.task!r}; tasks learned before are "
                f"intact; lower --learning-rate or --lora-alpha, or look for broken rows"
            )
        self.latest = {"task_grad_norm": float(task_norm)}
        if self.recurrence:
            # The rule weighs the task's gradient, so it looks before penalties are in it; steps count from 0 there.
            self.recurrence.before(step - 1)
        if self.probe is not None:
            self.probe.show(self.groups, step)

        found = [group.penalise() for group in self.groups]
        adapter_norm = whole_norm(self.adapter)
        # Before weighing: a λ that is found takes this step in, or the first step would have none.
        self._update_strengths(found, adapter_norm)
        pulls = [group.weigh(each) for group, each in zip(self.groups, found, strict=True)]
        self._record(step, pulls, adapter_norm)

        for group, pull in zip(self.groups, pulls, strict=True):
            group.shape(pull.gradient)

        # Clipped once, and as a sum: to clip the task's gradient first would change the penalties' share of it.
        total = whole_norm(self.params) if any(g.penalties or g.transforms for g in self.groups) else task_norm
        if not torch.isfinite(total):
            names = ", ".join(sorted({part.name for group in self.groups for part, _ in group.penalties}))
            raise TrainingError(
                f"the penalty's gradient became NaN or infinite at step {step} of task {self.task!r}; tasks learned "
                f"before are intact; lower the strength of {names} (of a budget, raise its nats), or --lora-alpha"
            )
        if 0 < self.max_norm < total:
            for p in self.params:
                if p.grad is not None:
                    p.grad.mul_(self.max_norm / total)
        for group in self.groups:
            # A stack is as large as the adapters; it is not held until the next step.
            group.end_gradient()

    @spent("penalties")
    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Shape the step that the optimiser has taken; close a block that ends with it."""
        for group in self.groups:
            if group.acting("update"):
                group.shape_update()
        if self.recurrence:
            # The Trainer counts this step only after this callback: this is still its number from 0.
            now = int(state.global_step)
            self.recurrence.after(now, last=now + 1 == int(state.max_steps))

    def strengths(self) -> dict[str, float | dict[str, float]]:
        """Return the λ that each penalty has found for itself: one number, or one per module."""
        found: dict[str, Any] = {}
        for group in self.groups:
            for name, controller in group.controllers.items():
                if controller.found and controller.lam.ndim:
                    found.setdefault(name, {}).update(zip(group.names, controller.lam.tolist(), strict=True))
                elif controller.found:
                    found[name] = float(controller.lam)
        return found

    @torch.no_grad()
    def predicted_rise(self) -> float | None:
        """Return what earlier tasks together are predicted to lose by the update as it is; None if no part does."""
        predicted, tasks = predicted_rise(self.groups, [group.penalise(moved=True) for group in self.groups])
        return predicted if tasks else None

    def _update_strengths(self, found: Sequence[Sequence[PenaltyGradient]], task_norm: Tensor) -> None:
        """Let every controller that finds its strength take note of this step."""
        # Squares add up over groups of modules, norms do not.
        squares: dict[str, Tensor] = {}
        for group, each in zip(self.groups, found, strict=True):
            for (part, _), one in zip(group.penalties, each, strict=True):
                controller = group.controllers[part.name]
                if not controller.found:
                    continue
                if controller is self.controllers[part.name]:
                    squares[part.name] = squares.get(part.name, 0) + norms(one.gradient).square().sum()
                else:
                    # Module against module: both norms are (L,).
                    controller.update(norms(group.before.gradient), norms(one.gradient))
        for name, square in squares.items():
            self.controllers[name].update(task_norm, square.sqrt())
        self._spend(found)

    def _spend(self, found: Sequence[Sequence[PenaltyGradient]]) -> None:
        """Hold what earlier tasks are predicted to lose against the budgets, if there are any."""
        predicted, tasks = predicted_rise(self.groups, found)
        if tasks:
            self.latest["predicted_rise"] = predicted
            for controller in self.controllers.values():
                controller.spend(predicted, tasks)

    def _record(self, step: int, pulls: Sequence[WeightedPenalty], adapter_norm: Tensor) -> None:
        """Note what the penalties came to: of this step over all modules, and now and then module by module."""
        values: dict[str, float] = {}
        for pull in pulls:
            for name, value in pull.by_part.items():
                values[name] = values.get(name, 0.0) + value
        if values:
            squares = [pull.norms.square().sum() for pull in pulls if pull.gradient is not None]
            share = torch.stack(squares).sum().sqrt() / adapter_norm.clamp_min(TINY)
            self.latest["adapter_grad_norm"] = float(adapter_norm)
            self.latest |= {f"penalty/{name}": value for name, value in values.items()} | {"rho": float(share)}
            self.latest |= {f"lam/{name}": lam for name, lam in self.strengths().items() if isinstance(lam, float)}
        # The first step always: a task that is shorter than this would leave no figures.
        if step % self.every and step != 1:
            return
        for group, pull in zip(self.groups, pulls, strict=True):
            own, wanted = norms(group.before.gradient), pull.norms
            sizes = torch.stack([module.norm() for module in group.live])
            self.records += [
                ModuleRow(
                    step=step,
                    module=name,
                    penalty=float(pull.value[k]),
                    rho=float(wanted[k]) / max(float(own[k]), TINY),
                    update_norm=float(sizes[k]),
                )
                for k, name in enumerate(group.names)
            ]
