"""What a learner knows, holds and has room for."""

from __future__ import annotations

from typing import Any

from everlora.analysis.runs import Run
from everlora.engine import memory
from everlora.parts.subspace import free


def status(run: Run) -> dict[str, Any]:
    """Facts about a run as it stands.

    Returns:
        ``model``, ``method``, ``tasks`` (``name``, ``score`` right after it was learned, ``seconds``, strengths found,
        ``warning``), ``kept_bytes``, and where there are adapters ``room``: per adapted module the directions that no
        task uses, ``tasks_left`` at the present rank, and whether the method is confined to them (``hard``).
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
    known["kept_bytes"] = 4 * past.numel + memory.size(run.memory())
    if not len(past):
        return known
    rank = max(site.rank for site in past.deltas[-1].values())
    modules = []
    for name in past.sites:
        out, into = past.deltas[0][name].shape
        left_out, left_in = map(int, free([delta[name] for delta in past]))
        left = min(left_out, left_in)
        share = min(left_out / out, left_in / into)
        modules.append({"module": name, "free": share, "directions": left, "tasks_left": left // rank})
    known["room"] = {"rank": rank, "hard": bool(run.method.transforms), "modules": modules}
    return known
