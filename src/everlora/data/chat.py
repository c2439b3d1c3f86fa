"""Tells what of a chat is learned: its last answer or all, and of an answer its content alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from everlora.core.errors import DataError
from everlora.data.task import Example, Task


def check_learned(message: Mapping[str, object], at: str, what: str = "the last message") -> None:
    """Refuse a learned message of which more than its content would have to be learned, or nothing.

    Raises:
        DataError: it has tool calls, reasoning or the like beside its content, or a weight other than 1.
    """
    for key, part in message.items():
        if key not in ("role", "content", "name", "weight") and part not in (None, "", [], {}):
            raise DataError(
                f"{at}: {what} has {key!r} beside its content, and only the content is learned; write it "
                f"into the content as the model's chat template would, or take it out"
            )
    if (weight := message.get("weight")) is not None and weight != 1:
        raise DataError(f"{at}: {what} has the weight {weight!r}, and what is learned counts as 1; leave the row out")


def each_turn(task: Task) -> Task:
    """Return a chat task in which every answer of the assistant is learned, each as a row of its own.

    Test rows stay conversations of which the last answer is scored. Answers of weight 0 are read and not learned.

    >>> said = (("user", "1?"), ("assistant", "a"), ("user", "2?"))
    >>> rows = [Example([{"role": role, "content": text} for role, text in said], "b")]
    >>> [row.target for row in each_turn(Task(name="talk", train=rows, test=rows, form="chat")).train]
    ['a', 'b']

    Raises:
        DataError: its rows are no chats, or more than the content of an answer would have to be learned.
    """
    if task.form != "chat":
        raise DataError(f"task {task.name!r}: its rows are no chats and have one answer each; leave learn_turns out")
    found = [turn for number, row in enumerate(task.train, start=1) for turn in _turns(row, task.name, number)]
    note = f"every answer of the assistant is learned: {len(found)} in {len(task.train)} conversations"
    return replace(task, train=found, turns="all", notes=(*task.notes, note))


def _turns(row: Example, name: str, number: int) -> Iterator[Example]:
    """Give a row for each answer of a conversation, with what was said before it."""
    for at, message in enumerate(row.input):
        if message["role"] == "assistant" and at and message.get("weight") != 0 and message["content"].strip():
            check_learned(message, f"task {name!r}: row {number}, message {at + 1}", "it")
            yield Example(row.input[:at], message["content"])
    yield row
