"""Tells where prompts of one split end in a blank and those of another do not, and evens them out for benchmarks.

``Summary: `` and ``Summary:`` end in other tokens, so that a model which learned to answer behind the first may write
nothing behind the second. TRACE's MeetingBank is such a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from everlora.data.spelling import shown
from everlora.data.task import Example, Task

SHOWN = 12


def uneven_ends(splits: Mapping[str, Sequence[Example]]) -> tuple[str, ...]:
    """Say in a line that the prompts of one split all end in white space and those of another nowhere; else nothing.

    >>> uneven_ends({"train": [Example("this. Summary: ", "a")], "test": [Example("that. Summary:", "b")]})[0]
    "the prompts of train end in a blank ('s. Summary: '), those of test do not; make them end alike"
    """
    ends = {split: [_prompt(one) for one in splits.get(split, ())] for split in ("train", "dev", "test")}
    blank = [split for split, found in ends.items() if found and all(one[-1:].isspace() for one in found)]
    bare = [split for split, found in ends.items() if found and not any(one[-1:].isspace() for one in found)]
    if not blank or not bare:
        return ()
    these, those, example = " and ".join(blank), " and ".join(bare), shown(ends[blank[0]][0][-SHOWN:])
    return (f"the prompts of {these} end in a blank ({example}), those of {those} do not; make them end alike",)


def evened(task: Task) -> Task:
    """Return a task of a benchmark without the blanks that its training prompts alone end in; its notes say so.

    What is asked stays as it is. Blanks behind a newline, which may be the indentation of code, stay, too.
    """
    splits = {"train": task.train, "dev": task.dev, "test": task.test}
    found = uneven_ends(splits)
    train = tuple(replace(one, input=_without_blanks(one.input)) for one in task.train)
    if not found or task.form != "prompted" or uneven_ends({**splits, "train": train}):
        return task
    notes = tuple(note for note in task.notes if note not in found)
    end = shown(_prompt(task.train[0])[-SHOWN:])
    return replace(task, train=train, notes=(*notes, f"the blank that training prompts end in ({end}) is left out"))


def _without_blanks(text: Any) -> Any:
    bare = text.rstrip(" \t") if isinstance(text, str) else text
    return text if not bare or bare[-1:] == "\n" else bare


def _prompt(example: Example) -> str:
    """Return what stands last before the answer: of a chat, the last message."""
    if isinstance(example.input, list):
        return str(example.input[-1].get("content", "")) if example.input else ""
    return example.input if isinstance(example.input, str) else ""
