"""The gradient chain: what happens to the gradient between backward and the optimiser's step.

    gradient of the task (reduced over accumulation and processes)
      + gradients of the weight penalties, in closed form, once per step
      → clip the sum by its norm
      → optimiser

Everything here is a function of replicated tensors, so it is the same on every process and for every split of the
batch. ρ, the penalties' share, is ‖Σ penalty gradients‖ / ‖task gradient‖, before clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from everlora.core.errors import TrainingError
from everlora.core.past import Past
from everlora.core.roles import State, WeightPenalty
from everlora.core.sites import LowRank, Sites, groups, stack

COLLAPSE = 0.05
"""An update this much smaller than the median earlier one is called collapsed."""


@dataclass
class Group:
    """Modules of one shape, their live parameters, and each penalty's constants for them."""

    names: tuple[str, ...]
    live: list[LowRank]
    states: list[tuple[WeightPenalty, State]]


@dataclass
class Chain(TrainerCallback):
    """Penalties and clipping as a Trainer callback.

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
    records: list[dict[str, Any]] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        params: list[nn.Parameter],
        live: Sites,
        past: Past,
        penalties: Sequence[WeightPenalty],
        *,
        task: str,
        max_norm: float,
        every: int,
    ) -> Chain:
        """Prepare the constants of one task: dense views of the past are made here, once."""
        chain = cls(params=params, task=task, max_norm=max_norm, every=max(1, every))
        active = [p for p in penalties if p.strength != 0]
        for names in groups(live):
            before = past.stacked(names) if active else None
            device = live[names[0]].A.device
            states = []
            for penalty in active:
                state = penalty.prepare(before)
                if state is not None:
                    states.append((penalty, {k: v.to(device) for k, v in state.items()}))
            chain.groups.append(Group(names, [live[n] for n in names], states))
        return chain

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the penalties' gradients, then clip (transformers calls this after its own clipping, which is off)."""
        step = int(state.global_step) + 1
        task_norm = self._norm()
        if not torch.isfinite(task_norm):
            raise TrainingError(
                f"the loss became NaN or infinite at step {step} of task {self.task!r}; tasks learned before are "
                f"intact; lower --learning-rate, or look for broken rows"
            )
        values, pull_norm = self._add_penalties(step)
        self.latest = {"task_grad_norm": float(task_norm)}
        if values:
            self.latest |= values | {"rho": float(pull_norm / task_norm.clamp_min(1e-20))}
        total = self._norm() if values else task_norm
        if not torch.isfinite(total):
            raise TrainingError(
                f"the penalty's gradient became NaN or infinite at step {step} of task {self.task!r}; tasks learned "
                f"before are intact; lower the strength of {', '.join(v.removeprefix('penalty/') for v in values)}"
            )
        if 0 < self.max_norm < total:
            for p in self.params:
                if p.grad is not None:
                    p.grad.mul_(self.max_norm / total)

    def _norm(self) -> Tensor:
        grads = [p.grad for p in self.params if p.grad is not None]
        return torch.stack([g.float().norm() for g in grads]).norm() if grads else torch.zeros(())

    def _add_penalties(self, step: int) -> tuple[dict[str, float], Tensor]:
        values: dict[str, float] = {}
        squares: list[Tensor] = []
        recording = step % self.every == 0 or step == 1
        for group in self.groups:
            if not group.states and not recording:
                continue
            live = stack([LowRank(s.A.detach(), s.B.detach(), s.scale) for s in group.live])
            on_A, on_B = torch.zeros_like(live.A), torch.zeros_like(live.B)
            each = torch.zeros(len(group.names), device=live.A.device)
            for penalty, constants in group.states:
                pull = penalty.pull(live, constants)
                on_A += pull.A
                on_B += pull.B
                each += pull.value
                values[f"penalty/{penalty.name}"] = values.get(f"penalty/{penalty.name}", 0.0) + float(
                    pull.value.sum()
                )
            if recording:
                self._record(step, group, live, each, on_A, on_B)
            for k, site in enumerate(group.live):
                if site.A.grad is not None and site.B.grad is not None:
                    site.A.grad.add_(on_A[k].to(site.A.grad.dtype))
                    site.B.grad.add_(on_B[k].to(site.B.grad.dtype))
            if not group.states:
                continue
            squares += [on_A.square().sum(), on_B.square().sum()]
        return values, torch.stack(squares).sum().sqrt() if squares else torch.zeros(())

    def _record(self, step: int, group: Group, live: LowRank, each: Tensor, on_A: Tensor, on_B: Tensor) -> None:
        """Per module: the penalty, its share of the gradient, and the norm of the update."""
        norms = live.norm()
        pulls = (on_A.square().sum((-2, -1)) + on_B.square().sum((-2, -1))).sqrt()
        for k, name in enumerate(group.names):
            A, B = group.live[k].A.grad, group.live[k].B.grad
            own = (
                (A.float().square().sum() + B.float().square().sum()).sqrt() if A is not None and B is not None else 0
            )
            self.records.append(
                {
                    "step": step,
                    "module": name,
                    "penalty": float(each[k]),
                    "rho": float(pulls[k]) / max(float(own), 1e-20),
                    "update_norm": float(norms[k]),
                }
            )


def collapse(live: Sites, past: Past) -> str | None:
    """A warning if the finished update is tiny beside the earlier ones: its penalty is low because it vanished."""
    if not len(past):
        return None

    def size(sites: Sites) -> float:
        return float(torch.stack([s.norm() for s in sites.values()]).norm())

    earlier = sorted(size(delta) for delta in past)
    typical, now = earlier[len(earlier) // 2], size(live)
    if now >= COLLAPSE * typical:
        return None
    return (
        f"the update collapsed: its norm is {now:.3g}, that of earlier tasks {typical:.3g}; the penalty is low only "
        f"because hardly anything was learned; lower its strength"
    )
