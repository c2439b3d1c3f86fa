"""Prompts of one task that end in a blank in one split and not in another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.benchmarks import folders
from everlora.core.benchmark import TaskInfo
from everlora.data.ends import evened, uneven_ends
from everlora.data.task import Example, Task
from everlora.data.tasks import task_from_dataset

MEETING = "\nSummary:"


def task(train: str, test: str, dev: str | None = None) -> Task:
    def rows(split: str, end: str) -> list[dict[str, str]]:
        return [{"prompt": f"{split} text {n}.{end}", "answer": f"answer {n}"} for n in range(3)]

    return task_from_dataset(
        "notes", rows("train", train), rows("test", test), dev=None if dev is None else rows("dev", dev)
    )


def ends(rows: Sequence[Example]) -> set[str]:
    return {str(one.input).rpartition(".")[2] for one in rows}


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\u00a0", " \n"])
def test_a_blank_in_one_split_alone_is_said_and_left_to_its_owner(blank: str) -> None:
    """Rows of one's own may be read again by themselves, and must then be the same rows."""
    for train, test, which in ((MEETING + blank, MEETING, "train"), (MEETING, MEETING + blank, "test")):
        found = task(train, test)
        (note,) = found.notes
        assert note.startswith(f"the prompts of {which} end in a blank (")
        assert note.endswith("make them end alike")
        assert ends(found.train) == {train}
        assert ends(found.test) == {test}


def test_the_last_message_of_a_chat_is_a_prompt() -> None:
    def chat(text: str) -> dict[str, list[dict[str, str]]]:
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}

    found = task_from_dataset("chat", [chat("one: "), chat("two: ")], [chat("three:")])
    assert found.notes == ("the prompts of train end in a blank ('one: '), those of test do not; make them end alike",)


@pytest.mark.parametrize("end", [MEETING + " ", MEETING, MEETING + "\n"])
def test_prompts_that_end_alike_are_nothing_to_speak_of(end: str) -> None:
    found = task(end, end, end)
    assert not found.notes
    assert evened(found) == found


def test_a_benchmarks_training_prompts_are_evened_and_what_is_asked_stays() -> None:
    found = evened(task(MEETING + " ", MEETING, MEETING))
    assert ends(found.train) == ends(found.dev) == ends(found.test) == {MEETING}
    assert found.notes == ("the blank that training prompts end in ('0.\\nSummary: ') is left out",)
    other = task(MEETING, MEETING + " ")
    assert evened(other) == other
    assert evened(other).notes == other.notes


def test_indentation_of_code_stays() -> None:
    found = task("\n    ", "\ndef g():")
    assert ends(evened(found).train) == {"\n    "}
    assert evened(found).notes == found.notes


def test_a_folder_as_trace_writes_it_is_evened(tmp_path: Path) -> None:
    """Its MeetingBank has `Summary: ` in train and `Summary:` in test, behind which a model then wrote nothing."""
    for split, end in (("train", "Summary: "), ("test", "Summary:")):
        rows = [{"prompt": f"{split} {n}\n{end}", "answer": f"a {n}"} for n in range(3)]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    found = folders._from_folder(TaskInfo(name="MeetingBank"), tmp_path, "trace")
    assert {str(one.input)[-8:] for one in (*found.train, *found.test)} == {"Summary:"}
    (note,) = found.notes
    assert note.endswith("is left out")


texts = st.lists(st.text(st.sampled_from("ab \t\n"), min_size=1, max_size=4), max_size=4)


@given(train=texts, test=texts)
def test_blanks_of_training_rows_and_nothing_else_ever_go(train: list[str], test: list[str]) -> None:
    rows = {"train": [Example(one, "x") for one in train], "test": [Example(one, "x") for one in test]}
    if not train or not test:
        assert not uneven_ends(rows)
        return
    before = Task(name="t", train=rows["train"], test=rows["test"], form="prompted")
    after = evened(before)
    assert after.test == before.test
    assert [one.input.rstrip(" \t") for one in after.train] == [one.rstrip(" \t") for one in train]
    assert evened(after) == after
