"""How much a learner keeps for its next task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everlora.core.history import UpdateHistory
from everlora.core.updates import Updates
from everlora.data.task import Task
from everlora.training import memory, rehearsal


def stored(past: UpdateHistory | None, newest: Updates, known: memory.Memory, rows: Sequence[Task]) -> dict[str, Any]:
    """What is kept for the next task, which the method's declaration must equal.

    Args:
        past: every task's update; None where one adapter is trained on and on, which is then all there is.
        newest: the adapter of the latest task.
        known: what parts remember beside the updates.
        rows: the rows of earlier tasks that are rehearsed.

    Returns:
        Elements of past updates and of one adapter, rows of data if any, and all bytes: these updates in fp32, what
        parts remember beside them, and the rows.
    """
    adapter = sum(update.numel for update in newest.values())
    elements = adapter if past is None else past.numel
    size = 4 * elements + memory.size(known) + rehearsal.size(rows)
    return {
        "kept_elements": elements,
        "adapter_elements": adapter,
        "kept_bytes": size,
        **rehearsal.counted(rows),
    }
