"""How the tasks of a run met in weight space: repetition, contradiction, and the room that is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from everlora.analysis.room import room
from everlora.analysis.runs import Run
from everlora.core.errors import ConfigError
from everlora.core.roles import AutoStrength, HasEnergy, WeightPenalty
from everlora.core.updates import LowRank
from everlora.parts.penalties import interference, interference_bound


def inspect(run: Run) -> list[dict[str, Any]]:
    """Per task, per adapted module, how its update ΔW meets the past W.

    Returns:
        One entry per task: ``task``, ``modules`` (a list of the figures of `meeting` by ``module``), and over all
        modules ``interference`` (sum), ``cosine``, ``opposed``, ``conflict`` and ``free`` (the least of any).

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
    for stage, (name, added, past, after) in zip(run.stages, run.updates(), strict=False):
        lam = _strength(part, stage.facts) if part else None
        modules = []
        for site, update in added.items():
            here = lam.get(site) if isinstance(lam, dict) else lam
            before = past.factors(site) if len(past) else None
            left = room(after, site)
            modules.append(
                {
                    "module": site,
                    **meeting(update, before, part.weigh if part else torch.abs, here),
                    "free": left.share,
                    "free_directions": left.directions,
                }
            )
        found.append({"task": name, **_overall(modules), "modules": modules})
    return found


def _strength(part: WeightPenalty, facts: dict[str, Any]) -> Any:
    """λ of one task: as given, or as it was found: a number, or one per module."""
    return facts["strengths"].get(part.name) if isinstance(part.strength, AutoStrength) else part.strength


def meeting(
    update: LowRank, past: LowRank | None, weigh: Callable[[Tensor], Tensor], lam: float | None
) -> dict[str, float | None]:
    """Figures of one module.

    Args:
        update: ΔW.
        past: W; None on the first task.
        weigh: the energy E of W; for methods that have none, its magnitude.
        lam: λ, if the method has one.

    Returns:
        ``update_norm``, ``past_norm``: ‖ΔW‖_F, ‖W‖_F. ``interference``: ⟨ΔW, W⟩. ``cosine``: that by both norms.
        ``bound``: ‖ΔW ⊙ E‖ ‖E⁻¹ ⊙ W‖, which |⟨ΔW, W⟩| cannot exceed (Cauchy-Schwarz). ``surrogate_bound``: the bound
        of ELLA's Formal Characterization for the free step that ΔW would be the shrinkage of, with twice the run's
        λ, which multiplies Ω without a ½; None where there is no λ. ``opposed``: share of entries with opposite signs,
        of those where both are not 0.
        ``conflict``: Σ over opposed entries of |ΔW W|, as a share of that sum over all entries.
        All but the first are None on the first task.
    """
    D = update.dense()
    keys = ("past_norm", "interference", "cosine", "bound", "surrogate_bound", "opposed", "conflict")
    if past is None:
        return {"update_norm": float(D.norm()), **dict.fromkeys(keys)}
    W = past.dense()
    E = weigh(W)
    held = E != 0
    ratio = torch.where(held, W / torch.where(held, E, 1), 0)
    product = D * W
    met = product != 0
    meets, size = float(interference(D, W)), float(D.norm() * W.norm())
    return {
        "update_norm": float(D.norm()),
        "past_norm": float(W.norm()),
        "interference": meets,
        "cosine": meets / size if size else 0.0,
        "bound": float((D * E).norm() * ratio.norm()),
        "surrogate_bound": float(interference_bound(D * (1 + 2 * lam * E.square()), W, E, 2 * lam)) if lam else None,
        "opposed": float((product < 0).sum() / met.sum().clamp_min(1)),
        "conflict": float(product.clamp_max(0).abs().sum() / product.abs().sum().clamp_min(1e-30)),
    }


def _overall(modules: list[dict[str, Any]]) -> dict[str, Any]:
    worst = min(modules, key=lambda m: m["free"])
    whole: dict[str, Any] = {"free": worst["free"], "free_least": worst["module"]}
    if modules[0]["past_norm"] is None:
        return {"interference": None, "cosine": None, "opposed": None, "conflict": None, **whole}
    meets = sum(m["interference"] for m in modules)
    sizes = [sum(m[key] ** 2 for m in modules) ** 0.5 for key in ("update_norm", "past_norm")]

    def mean(key: str) -> float:
        return float(sum(m[key] for m in modules) / len(modules))

    cosine = meets / (sizes[0] * sizes[1]) if sizes[0] * sizes[1] else 0.0
    return {"interference": meets, "cosine": cosine, "opposed": mean("opposed"), "conflict": mean("conflict"), **whole}
