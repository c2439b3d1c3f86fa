"""Defines the command that tells how a learner stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from everlora.cli.common import Json, Plugin, say
from everlora.cli.look import Folder

if TYPE_CHECKING:
    from everlora.archive.records import Room


def status(run: Folder, plugin: Plugin = None, as_json: Json = False) -> None:
    """Tell what a learner knows, what it keeps, and how much room its adapted modules have left."""
    from everlora.analysis.status import status as facts_of
    from everlora.cli.tables import number, show, table

    facts = facts_of(run)
    if as_json:
        say(json.dumps(facts.as_json(), allow_nan=False))
        return
    rows = [
        (
            task.name,
            number(task.score_now),
            number(task.score),
            " / ".join(str(task.rows.get(split, "–")) for split in ("train", "test")),
            task.date[:10] if task.date else "–",
            task.by or "–",
            ", ".join(f"{name} {_strength(value)}" for name, value in task.strengths.items()) or "–",
        )
        for task in facts.tasks
    ]
    heads = ("task", "score now", "when learned", "rows (train / test)", "date", "by", "strength found")
    show(table(f"{facts.method} on {facts.model}", heads, rows))
    for line in facts.warnings:
        say(f"warning: {line}")
    if facts.labels:
        say(f"labels by row of the head: {', '.join(facts.labels)}")
    for line in filter(None, (facts.shared_rows, facts.forecast)):
        say(line)
    data = f", {facts.stored_rows} rows of data among it" if facts.stored_rows else ""
    say(f"kept for the next task: {facts.holdings.memory_bytes / 1e6:.2f} MB{data}")
    for part, lost in facts.holdings.memory_error.items():
        say(
            f"{part} remembers the past with a relative error of {'at most ' if lost.at_most else ''}{lost.error:.3g} "
            f"(worst module {lost.worst:.3g}, {lost.module})"
        )
    if facts.loads:
        say(f"answering loads on top of the base model: {_files(facts.loads)}")
    if rank := facts.holdings.rank:
        say(f"rank of the sum of all updates, over modules: {rank.least} to {rank.most}, median {rank.median:g}")
    if facts.holdings.room and facts.holdings.room.hard:  # others may learn in directions that are taken
        for line in _room(facts.holdings.room):
            say(line)


def _room(room: Room) -> list[str]:
    from everlora.archive.records import FEW_TASKS

    worst = min(room.modules, key=lambda module: module.free)
    lines = [
        f"room: {100 * worst.free:.1f} % of directions are free in the tightest module ({worst.module}), enough "
        f"for {worst.tasks_left} more tasks of rank {room.rank}"
    ]
    tight = [module for module in room.modules if module.tasks_left < FEW_TASKS]
    if room.hard and tight:
        lines.append(
            f"{len(tight)} of {len(room.modules)} modules run out of directions, and this method learns in free "
            f"ones only; take a smaller --lora-r, wider modules (--lora-target-modules), or a soft method (ella, …)"
        )
    return lines


def _files(loads: Mapping[str, int]) -> str:
    """Name files, or count them where they are many, with their size."""
    named = ", ".join(loads) if len(loads) <= 4 else f"{len(loads)} files"
    return f"{named} ({sum(loads.values()) / 1e6:.2f} MB)"


def _strength(value: float | dict[str, float]) -> str:
    """Return a strength, or the least and the largest where every module has its own."""
    if value == {}:
        return "none"
    if isinstance(value, dict):
        return f"{min(value.values()):.3g} to {max(value.values()):.3g}"
    return f"{value:.3g}"
