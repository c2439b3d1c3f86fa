"""Prompts of one task that end in a blank in one split and not in another are one prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.data.ends import even_ends
from everlora.data.task import Example, Task
from everlora.data.tasks import task_from_dataset


def task(train: str, test: str, dev: str | None = None) -> Task:
    def rows(split: str, end: str) -> list[dict[str, str]]:
        return [{"prompt": f"{split} text {n}.{end}", "answer": f"answer {n}"} for n in range(3)]

    return task_from_dataset(
        "notes", rows("train", train), rows("test", test), dev=None if dev is None else rows("dev", dev)
    )


def inputs(rows: Sequence[Example]) -> list[str]:
    return [str(one.input) for one in rows]


@pytest.mark.parametrize(("train", "test"), [("\nSummary: ", "\nSummary:"), ("\nSummary:", "\nSummary: \t")])
def test_a_blank_in_one_split_alone_is_left_out_and_said(train: str, test: str) -> None:
    found = task(train, test)
    assert {one.rpartition(".")[2] for one in (*inputs(found.train), *inputs(found.test))} == {"\nSummary:"}
    (note,) = found.notes
    blank, bare = ("train", "test") if train.endswith(" ") else ("test", "train")
    assert note.startswith(f"the prompts of {blank} end in a blank (")
    assert note.endswith(f"those of {bare} do not: it is left out")


@pytest.mark.parametrize("end", ["\nSummary: ", "\nSummary:", "\nSummary:\n"])
def test_prompts_that_end_alike_stay_as_they_are(end: str) -> None:
    found = task(end, end, end)
    assert not found.notes
    assert all(one.endswith(end) for rows in (found.train, found.dev, found.test) for one in inputs(rows))


def test_a_third_split_follows() -> None:
    found = task("\nSummary: ", "\nSummary:", "\nSummary: ")
    assert {one.rpartition(".")[2] for one in inputs(found.dev)} == {"\nSummary:"}
    assert found.notes == (
        "the prompts of train and dev end in a blank ('0.\\nSummary: '), those of test do not: it is left out",
    )


texts = st.lists(st.text(st.sampled_from("ab \t\n"), max_size=4), max_size=4)


@given(train=texts, test=texts)
def test_nothing_but_blanks_at_the_end_ever_goes(train: list[str], test: list[str]) -> None:
    """And afterwards no split ends in blanks everywhere while another nowhere does."""
    read = {"train": [Example(one, "x") for one in train], "test": [Example(one, "x") for one in test]}
    notes = even_ends(read)
    for before, split in ((train, "train"), (test, "test")):
        after = inputs(read[split])
        assert [one.rstrip(" \t") for one in before] == [one.rstrip(" \t") for one in after]
        assert notes or after == before
    assert not even_ends(read)
