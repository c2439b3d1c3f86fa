"""Refuses labels of whose names no rows of a classification head can be made, or no two that differ."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from everlora.core.errors import DataError
from everlora.data.task import Task

PLACEHOLDER = re.compile(r"LABEL_\d+", re.IGNORECASE)
"""What transformers calls labels that nobody has named."""
CURE = "rename them, or leave out --head names"


def is_word(label: str) -> bool:
    """Return whether a label is a word, and no number or sign.

    >>> is_word("good"), is_word("5 *")
    (True, False)
    """
    return any(map(str.isalpha, label))


def check_label_names(task: Task, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
    """Refuse a task in which a label says nothing to the model, or two labels say the same.

    Args:
        task: of whose labels rows are to be made.
        tokenizer: the model's.
        context: how many tokens of a label are read.

    Raises:
        DataError: a label is a number, a sign or a placeholder, has unknown tokens alone, or those of another label.
    """
    for label in task.labels:
        if not is_word(label) or PLACEHOLDER.fullmatch(label):
            raise DataError(
                f"task {task.name!r}: the label {label!r} has no name, and --head names makes rows of names; "
                f"give the labels words, or leave out --head"
            )
    by_tokens: dict[tuple[int, ...], list[str]] = {}
    for label in task.labels:
        ids = tokenizer(label, truncation=True, max_length=context).input_ids
        by_tokens.setdefault(tuple(ids), []).append(label)
    special = set(tokenizer.all_special_ids)  # the unknown token among them
    if unknown := [label for ids, labels in by_tokens.items() if special.issuperset(ids) for label in labels]:
        raise DataError(
            f"task {task.name!r}: the model's tokenizer knows no part of the labels {_listed(unknown)}, and --head "
            f"names makes rows of what the model reads; {CURE}"
        )
    for same in by_tokens.values():
        if len(same) > 1:
            raise DataError(
                f"task {task.name!r}: the labels {_listed(same)} are the same tokens to the model, so that --head "
                f"names would give them the same row; {CURE}"
            )


def as_named_by(task: Task, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, context: int) -> list[str]:
    """Return answers in a task's own words, where another task's label is the same tokens to the model.

    Their rows of the head are the same, so that which of them is the largest says nothing.
    """

    def seen(label: str) -> tuple[int, ...]:
        return tuple(tokenizer(label, truncation=True, max_length=context).input_ids)

    own = {seen(label): label for label in task.labels}
    names = {answer: own.get(seen(answer), answer) for answer in {*answers}}
    return [names[answer] for answer in answers]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:8])) + (", ..." if len(labels) > 8 else "")
