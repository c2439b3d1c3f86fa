"""Makes prompts of all splits end alike: what is learned behind one ending is not asked for behind another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from everlora.data.spelling import shown
from everlora.data.task import Example

SHOWN = 12


def even_ends(read: dict[str, list[Example]]) -> tuple[str, ...]:
    """Take blanks from behind the prompts of all splits where one split has them everywhere and another nowhere.

    ``Summary: `` and ``Summary:`` end in other tokens, so that a model which learned to answer behind the first writes
    nothing behind the second. TRACE's MeetingBank is such a task.

    Args:
        read: the rows of each split, changed in place.

    Returns:
        What was done, in a line; nothing where prompts end alike, or no text.

    >>> rows = {"train": [Example("this. Summary: ", "a")], "test": [Example("that. Summary:", "b")]}
    >>> even_ends(rows), rows["train"][0].input
    (("the prompts of train end in a blank ('s. Summary: '), those of test do not: it is left out",), 'this. Summary:')
    """
    ends = {split: [one.input.endswith((" ", "\t")) for one in _texts(rows)] for split, rows in read.items()}
    blank = [split for split, found in ends.items() if found and all(found)]
    bare = [split for split, found in ends.items() if found and not any(found)]
    if not blank or not bare:
        return ()
    example = shown(str(read[blank[0]][0].input)[-SHOWN:])
    for split, rows in read.items():
        read[split] = [
            replace(one, input=one.input.rstrip(" \t")) if isinstance(one.input, str) else one for one in rows
        ]
    these, those = " and ".join(blank), " and ".join(bare)
    return (f"the prompts of {these} end in a blank ({example}), those of {those} do not: it is left out",)


def _texts(rows: Sequence[Example]) -> list[Example]:
    return [one for one in rows if isinstance(one.input, str)]
