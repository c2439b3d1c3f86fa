"""What a learner knows, holds and has room for."""

from __future__ import annotations

from math import hypot
from typing import Any

from everlora.analysis.room import room
from everlora.analysis.runs import Run
from everlora.core.history import UpdateHistory
from everlora.core.roles import HasCapacity, ReconstructsPast


def status(run: Run) -> dict[str, Any]:
    """Facts about a run as it stands.

    Returns:
        ``model``, ``method``, ``tasks`` (``name``, ``score`` right after it was learned, ``seconds``, strengths found,
        ``warning``), ``kept_bytes``; ``kept_rows`` where data are kept; where a part remembers the past in its own
        form, ``memory_error`` (see `_forgotten`); and where there are adapters ``room``: per adapted module the
        directions that no task uses, ``tasks_left`` at the present rank, and whether the method is confined to them
        (``hard``).
    """
    tasks = []
    for stage in run.stages:
        facts = stage.facts
        row = facts["row"]
        tasks.append(
            {
                "name": facts["name"],
                "score": row[stage.facts["number"] - 1] if run.method.regime == "sequence" else None,
                "seconds": facts.get("seconds"),
                "strengths": facts.get("strengths") or {},
                "warning": facts.get("warning"),
            }
        )
    past = run.past()
    known: dict[str, Any] = {"model": run.settings["model"], "method": run.method.name, "tasks": tasks}
    known["kept_bytes"] = run.kept_bytes()
    if rows := sum(stage.facts.get("kept_rows", 0) for stage in run.stages):
        known["kept_rows"] = rows
    if not len(past) or not run.method.adapter.low_rank:
        return known
    if lost := _forgotten(run, past):
        known["memory_error"] = lost
    rank = max(site.rank for site in past.deltas[-1].values())
    modules = []
    for name in past.sites:
        share, left = room(past, name)
        modules.append({"module": name, "free": share, "directions": left, "tasks_left": left // rank})
    hard = any(isinstance(transform, HasCapacity) for transform in run.method.transforms)
    known["room"] = {"rank": rank, "hard": hard, "modules": modules}
    return known


def _forgotten(run: Run, past: UpdateHistory) -> dict[str, dict[str, Any]]:
    """By part that remembers the past in a form of its own: ‖W_past − what is remembered‖_F / ‖W_past‖_F, measured.

    Returns:
        ``error`` over all modules; ``worst``, that of the worst module; and its name, ``module``.
    """
    found, held = {}, run.memory()
    for part in run.method.remembering:
        if not isinstance(part, ReconstructsPast) or part.name not in held:
            continue
        exact = {name: past.total(name) for name in held[part.name]}
        lost = {name: float((exact[name] - part.reconstruct(held[part.name][name])).norm()) for name in exact}
        sizes = {name: float(exact[name].norm()) for name in exact}
        each = {name: lost[name] / sizes[name] if sizes[name] else 0.0 for name in exact}
        whole, worst = hypot(*sizes.values()), max(each, key=lambda name: each[name])
        error = hypot(*lost.values()) / whole if whole else 0.0
        found[part.name] = {"error": error, "worst": each[worst], "module": worst}
    return found
