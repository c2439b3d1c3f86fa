"""Compares each task's update with the past: repetition, contradiction, and the room that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from everlora.analysis.holdings import Free, free_directions
from everlora.analysis.runs import Run
from everlora.archive.commits import Commit
from everlora.archive.records import Strength
from everlora.core.errors import ConfigError
from everlora.core.roles import AutoStrength, Budget, HasEnergy, WeightPenalty
from everlora.core.updates import LowRank
from everlora.parts.penalties import interference, interference_bound


@dataclass(frozen=True)
class Meeting:
    """Holds how an update ΔW of one module meets the past W; all but the first are None where there is none.

    Attributes:
        update_norm, past_norm: ‖ΔW‖_F, ‖W‖_F.
        interference: ⟨ΔW, W⟩.
        cosine: that by both norms.
        bound: ‖ΔW ⊙ E‖ ‖E⁻¹ ⊙ W‖, which |⟨ΔW, W⟩| cannot exceed (Cauchy-Schwarz).
        surrogate_bound: the bound of ELLA's Formal Characterization for the free step that ΔW would be the shrinkage
            of, with twice the run's λ, which multiplies Ω without a ½; None where there is no λ.
        opposed: share of entries with opposite signs, of those where both are not 0.
        conflict: Σ over opposed entries of |ΔW W|, as a share of that sum over all entries.
    """

    update_norm: float
    past_norm: float | None = None
    interference: float | None = None
    cosine: float | None = None
    bound: float | None = None
    surrogate_bound: float | None = None
    opposed: float | None = None
    conflict: float | None = None


@dataclass(frozen=True)
class ModuleMeeting:
    """Holds the meeting of one module, and the room that is left in it after the task."""

    module: str
    meeting: Meeting
    free: Free


@dataclass(frozen=True)
class TaskMeeting:
    """Holds how one task's update met the past.

    Attributes:
        task: name.
        interference: sum over modules.
        cosine: over all modules as one vector.
        opposed, conflict: means over modules.
        free, free_least: the least room of any module, and its name.
        modules: one by one.
    """

    task: str
    interference: float | None
    cosine: float | None
    opposed: float | None
    conflict: float | None
    free: float
    free_least: str
    modules: Sequence[ModuleMeeting]

    def as_json(self) -> dict[str, object]:
        """Return the object that ``everlora inspect --json`` prints of a task."""
        modules = [
            {
                "module": one.module,
                **asdict(one.meeting),
                "free": one.free.share,
                "free_directions": one.free.directions,
            }
            for one in self.modules
        ]
        return {**{key: value for key, value in vars(self).items() if key != "modules"}, "modules": modules}


def inspect(run: Run) -> list[TaskMeeting]:
    """Compare the update of every task with the past, per adapted module.

    Raises:
        ConfigError: the method trains no low-rank updates.
    """
    if not run.method.adapter.loads_with_peft:
        raise ConfigError(
            f"{run.method.name!r} trains one {run.method.adapter.noun} and no low-rank updates, so there is nothing "
            f"to compare with the past; everlora status shows the run"
        )
    part = next((p for p in run.method.penalties if isinstance(p, HasEnergy)), None)
    found = []
    facts = {stage.facts.name: stage.facts for stage in run.stages}
    for name, added, past, after in run.updates():
        lam = _strength(part, facts[name]) if part else None
        modules = []
        for site, update in added.items():
            here = lam.get(site) if isinstance(lam, dict) else lam
            before = past.factors(site) if len(past) else None
            met = meeting(update, before, part.weigh if part else torch.abs, here)
            modules.append(ModuleMeeting(site, met, free_directions(after, site)))
        found.append(_over_modules(name, modules))
    return found


def _strength(part: WeightPenalty, facts: Commit) -> Strength | None:
    """Return λ of one task: as given, or as it was found: a number, or one per module."""
    given = part.strength
    return facts.strengths.get(part.name) if isinstance(given, AutoStrength | Budget) else given


def meeting(update: LowRank, past: LowRank | None, weigh: Callable[[Tensor], Tensor], lam: float | None) -> Meeting:
    """Compare the update of one module with its past.

    Args:
        update: ΔW.
        past: W; None on the first task.
        weigh: the energy E of W; for methods that have none, its magnitude.
        lam: λ, if the method has one.
    """
    D = update.dense()
    if past is None:
        return Meeting(float(D.norm()))
    W = past.dense()
    E = weigh(W)
    held = E != 0
    ratio = torch.where(held, W / torch.where(held, E, 1), 0)
    product = D * W
    met = product != 0
    meets, size = float(interference(D, W)), float(D.norm() * W.norm())
    return Meeting(
        update_norm=float(D.norm()),
        past_norm=float(W.norm()),
        interference=meets,
        cosine=meets / size if size else 0.0,
        bound=float((D * E).norm() * ratio.norm()),
        surrogate_bound=float(interference_bound(D * (1 + 2 * lam * E.square()), W, E, 2 * lam)) if lam else None,
        opposed=float((product < 0).sum() / met.sum().clamp_min(1)),
        conflict=float(product.clamp_max(0).abs().sum() / product.abs().sum().clamp_min(1e-30)),
    )


def _over_modules(task: str, modules: Sequence[ModuleMeeting]) -> TaskMeeting:
    tightest = min(modules, key=lambda one: one.free.share)
    meetings = [one.meeting for one in modules]

    def values(key: str) -> list[float] | None:
        found = [getattr(one, key) for one in meetings]
        return None if None in found else found

    def mean(key: str) -> float | None:
        found = values(key)
        return None if found is None else float(sum(found) / len(found))

    meets, past = values("interference"), values("past_norm")
    total = cosine = None
    if meets is not None and past is not None:
        sizes = [sum(v**2 for v in norms) ** 0.5 for norms in ([one.update_norm for one in meetings], past)]
        total = sum(meets)
        cosine = total / (sizes[0] * sizes[1]) if sizes[0] * sizes[1] else 0.0
    return TaskMeeting(
        task=task,
        interference=total,
        cosine=cosine,
        opposed=mean("opposed"),
        conflict=mean("conflict"),
        free=tightest.free.share,
        free_least=tightest.module,
        modules=modules,
    )
