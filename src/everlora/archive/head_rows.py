"""Says in words whether the tasks of a classifier share rows of its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LISTED = 8
"""Names of labels that a sentence lists."""


def shared_rows(labels: Sequence[str], rows: Mapping[str, Sequence[int]]) -> str | None:
    """Say whether tasks whose labels have the same names share rows of the head; None where no names are the same.

    Args:
        labels: of the head, by row; a label that is one task's own may have the task behind its name.
        rows: of each task's labels.

    >>> shared_rows(["0", "1", "0 (b)", "1 (b)"], {"a": [0, 1], "b": [2, 3]})
    "each task has rows of the head of its own for '0', '1' (`shared_labels: true` in each shares them)"
    >>> shared_rows(["no", "yes"], {"a": [0, 1], "b": [1, 0]})
    "tasks share rows of the head for 'no', 'yes' (`shared_labels: false` keeps them apart)"
    """
    tasks: dict[str, list[int]] = {}
    for task, own in rows.items():
        for row in own:
            if 0 <= row < len(labels):
                tasks.setdefault(labels[row].removesuffix(f" ({task})"), []).append(row)
    same = [repr(name) for name, found in tasks.items() if len(set(found)) < len(found)]
    distinct = [repr(name) for name, found in tasks.items() if len(set(found)) > 1]
    shared = f"tasks share rows of the head for {_few(same)} (`shared_labels: false` keeps them apart)"
    owned = (
        f"each task has rows of the head of its own for {_few(distinct)} (`shared_labels: true` in each shares them)"
    )
    parts = [sentence for sentence, names in ((shared, same), (owned, distinct)) if names]
    return "; ".join(parts) or None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
