"""Reads the rows of tasks that a learner has learned once more, to learn them again or to look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from everlora.archive.committed import Committed
from everlora.core.errors import ConfigError, DataError, nearest
from everlora.data.files import load_task
from everlora.data.task import Task
from everlora.data.test_rows import entry_of
from everlora.metrics.answers import DEFAULT

FRACTION = 0.1
"""Share of the rows that becomes the test split where no file has one, as when a task is taught."""


def given_tasks(
    stages: Sequence[Committed],
    files: Mapping[str, Path],
    tests: Mapping[str, Path],
    columns: Mapping[str, str],
    fraction: float | None = None,
) -> dict[str, Task]:
    """Read tasks from the files that they were learned from.

    Args:
        stages: of the learner.
        files: of training rows, by task.
        tests: of test rows; by default the file that they were read from, or a share of the others.
        columns: other names of columns.
        fraction: that share.

    Raises:
        EverloraError: a task that was not learned, a file or row that cannot be used, or other rows.
    """
    known = {stage.facts.name: stage for stage in stages}
    for name in (*files, *tests):
        if name not in known:
            raise ConfigError(f"{name!r} is no task that was learned{nearest(name, known)}")
    if lacking := [name for name in tests if name not in files]:
        raise ConfigError(f"--test is given for {lacking[0]!r}, and no --data {lacking[0]}=FILE")
    found = {}
    for name, file in files.items():
        facts = known[name].facts
        card = facts.cards[name]
        of_card = Path(card.test.path) if card.test and Path(card.test.path).is_file() else None
        test = tests.get(name) or (None if fraction else of_card)
        entry = entry_of(
            name=name,
            train=str(file.resolve()),
            test=str(test.resolve()) if test else None,
            test_fraction=None if test else FRACTION if fraction is None else fraction,
            labels=card.labels or None,
            instruction=card.instruction,
            metric=facts.metric.get(name, DEFAULT),
            shared_labels=card.shared_labels,
            learn_turns=card.turns,
            **{**(card.test.columns if card.test else {}), **columns},
        )
        found[name] = load_task(entry, file)
    check_same_rows(stages, found)
    return found


def check_same_rows(stages: Sequence[Committed], tasks: Mapping[str, Task]) -> None:
    """Refuse tasks that are others than those that were learned.

    Raises:
        DataError: which.
    """
    for stage in stages:
        task = tasks.get(stage.facts.name)
        if task is not None and task.digest() != stage.facts.data[task.name]:
            raise DataError(
                f"the rows given for {task.name!r} are not those that it was learned from (train and test rows, in "
                f"their order, count); give the same files as then"
            )
