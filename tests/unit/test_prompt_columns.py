"""No column that looks like a part of the prompt is lost in silence, however rows are written and converted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from everlora.benchmarks import open_stream
from everlora.core.errors import DataError
from everlora.data.task import Task
from everlora.data.tasks import task_from_dataset

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def made(row: dict[str, Any], **more: Any) -> Task:
    """The task of two rows of this kind, which differ in their first text."""
    return task_from_dataset("t", [row], [other(row)], **more)


def other(row: dict[str, Any]) -> dict[str, Any]:
    return {column: f"{value} again" if isinstance(value, str) else value for column, value in row.items()} | (
        {"messages": [{"role": "user", "content": "Bye"}, *row["messages"][1:]]} if "messages" in row else {}
    )


def on_disk(folder: Path, rows: list[dict[str, Any]], more: str) -> Task:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text(f"tasks:\n  - {{name: t, train: train.jsonl, test_fraction: 0.5{more}}}\n")
    (task,) = open_stream(folder / "mine.yaml")
    return task


@pytest.mark.parametrize("column", ["input", "context", "question", "query", "text"])
def test_what_stands_behind_an_instruction_is_learned(column: str) -> None:
    task = made({"instruction": "Answer.", column: "Why?", "answer": "So."})
    assert (task.train[0].input, task.train[0].target) == ("Answer.\nWhy?", "So.")


FIRST = {"instruction": "Answer.", "input": "Why?"}
UNREAD = [
    ({**FIRST, "context": "It rained.", "output": "So."}, "context"),
    ({**FIRST, "text": "It rained.", "output": "So."}, "text"),
    ({"question": "Why?", "choices": ["a", "b"], "answer": "a"}, "choices"),
    ({"question": "Why?", "Options": "a, b", "answer": "a"}, "Options"),
    ({"prompt": "Why?", "context": "It rained.", "completion": "So."}, "context"),
    ({"text": "Why?", "question": "How?", "label": "a"}, "question"),
    ({"messages": CHAT, "functions": [{"name": "f"}]}, "functions"),
    ({"messages": CHAT, "documents": [{"text": "It rained."}]}, "documents"),
    ({"messages": CHAT, "chat_template_kwargs": {"thinking": True}}, "chat_template_kwargs"),
    ({"conversations": TURNS, "documents": [{"text": "It rained."}]}, "documents"),
]


@pytest.mark.parametrize(("row", "column"), UNREAD)
def test_a_part_of_the_prompt_that_is_not_read_is_refused_by_name(
    row: dict[str, Any], column: str, tmp_path: Path
) -> None:
    refused = f"row [12]: column '{column}' would change the prompt and is not read; .* under ignore_columns"
    with pytest.raises(DataError, match=refused):
        made(row)
    with pytest.raises(DataError, match=refused):
        on_disk(tmp_path, [row, other(row)], "")


def test_a_column_that_a_user_ignores_is_not_read(tmp_path: Path) -> None:
    row, column = UNREAD[0]
    assert made(row, ignore_columns=[column]).train[0].input == "Answer.\nWhy?"
    task = on_disk(tmp_path, [row, other(row)], f", ignore_columns: [{column}]")
    assert {task.train[0].input, task.test[0].input} == {"Answer.\nWhy?", "Answer. again\nWhy? again"}
    with pytest.raises(DataError, match=r"ignore_columns names 'contxt', and no row has it \(found: instruction"):
        made(row, ignore_columns=["contxt"])


NOTED = [
    ({"text": "Why?", "label": "a", "title": "It rained."}, "'title' is not read"),
    ({"text": "Why?", "label": "a", "title": "x", "url": "y"}, "'title', 'url' are not read"),
    ({**FIRST, "output": "So.", "topic": "rain"}, "'topic' is not read"),
    ({"question": "Why?", "answer": "So.", "topic": "rain"}, "'topic' is not read"),
    ({"messages": CHAT, "topic": "rain"}, "'topic' is not read"),
    ({"conversations": TURNS, "topic": "rain"}, "'topic' is not read"),
]


@pytest.mark.parametrize(("row", "said"), NOTED)
def test_a_column_that_nobody_knows_is_named_once(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    labels = {"labels": ["a", "a again"]} if "label" in row else {}
    again = (
        other(row)
        if "conversations" not in row
        else {**row, "conversations": [{**TURNS[0], "value": "Bye"}, TURNS[1]]}
    )
    unknown = [column for column in ("title", "url", "topic") if column in row]
    more = "".join(f", {key}: {json.dumps(value)}" for key, value in labels.items())
    tasks = [task_from_dataset("t", [row] * 2, [again], **labels), on_disk(tmp_path, [row, again], more)]
    for task in tasks:
        (note,) = task.notes
        assert said in note
        assert note.endswith("; ignore_columns says that this is meant")
    meant = task_from_dataset("t", [row], [again], ignore_columns=unknown, **labels)
    assert (meant.notes, meant.digest()) == ((), replace(tasks[0], train=meant.train).digest())
    assert on_disk(tmp_path, [row, again], f"{more}, ignore_columns: {json.dumps(unknown)}").notes == ()


def test_columns_that_number_rows_or_are_blank_are_not_named() -> None:
    row = {"text": "Why?", "label": "a", "id": 7, "Unnamed: 0": 1, "title": None, "url": " "}
    assert task_from_dataset("t", [row], [{**row, "text": "How?"}]).notes == ()


@pytest.mark.parametrize("blank", [None, "", " ", [], {}, float("nan")])
def test_a_blank_column_and_one_that_says_nothing_new_are_no_matter(blank: object) -> None:
    assert made({"question": "Why?", "context": blank, "answer": "So."}).train[0].input == "Why?"
    assert made({"messages": CHAT, "prompt": "Hi"}, ignore_columns=["prompt"]).train[0].target == "Hello"
    told = task_from_dataset(
        "t", [{"messages": CHAT, "prompt": "Hi"}], [{"messages": [{**CHAT[0], "content": "Yo"}, CHAT[1]]}]
    )
    assert told.train[0].input == CHAT[:1]


def test_a_named_system_column_does_not_lose_what_stands_beside_it() -> None:
    with pytest.raises(DataError, match="row 1: column 'instruction' would change the prompt"):
        made({"sys": "Be kind.", **FIRST, "output": "So."}, system_column="sys")
    with pytest.raises(DataError, match="rows of text and label have an instruction and a label set, and no system"):
        made({"sys": "Be kind.", "text": "x", "label": "a"}, system_column="sys", labels=["a", "a again"])
    systems = [{"role": "system", "content": "Be short."}, *CHAT]
    with pytest.raises(DataError, match="row 1: a system prompt stands in column 'sys' and in the chat; keep one"):
        made({"sys": "Be kind.", "messages": systems}, system_column="sys")
    twice = [{"from": "system", "value": "Be short."}, *TURNS]
    with pytest.raises(DataError, match="row 1: more than one system prompt"):
        made({"system": "Be kind.", "conversations": twice})


@pytest.mark.parametrize("column", ["system", "sys", "role"])
def test_a_system_column_is_learned_where_the_test_split_is_a_fraction(column: str, tmp_path: Path) -> None:
    row = {column: "Be kind.", "prompt": "Why?", "completion": "So."}
    task = on_disk(tmp_path, [row, {**row, "prompt": "How?"}], f", system_column: {column}")
    for rows in (task.train, task.test):
        assert [message["role"] for message in rows[0].input] == ["system", "user"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [({"prompt": "Why?", "completion": "So."}, "prompts that are given as a whole"), ({"messages": CHAT}, "chats")],
)
def test_an_instruction_that_would_not_be_shown_is_refused(row: dict[str, Any], kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"task 't': its rows are {kind}, to which no instruction is added"):
        made(row, instruction="Be kind.")
    with pytest.raises(DataError, match=f"task 't': its rows are {kind}, to which no instruction is added"):
        on_disk(tmp_path, [row, other(row)], ", instruction: Be kind.")


def turns(**last: Any) -> dict[str, Any]:
    return {"conversations": [TURNS[0], {**TURNS[1], **last}]}


def test_what_stands_in_a_turn_of_sharegpt_is_looked_at() -> None:
    with pytest.raises(DataError, match="row 1: the last message has the weight 0"):
        task_from_dataset("t", [turns(weight=0)], [turns()])
    with pytest.raises(DataError, match="row 1: the last message has 'tool_calls' beside its content"):
        task_from_dataset("t", [turns(tool_calls=[{"name": "f"}])], [turns()])
    first = {**TURNS[0], "weight": 0}
    test = [{"conversations": [{**TURNS[0], "value": "Bye"}, TURNS[1]]}]
    task = task_from_dataset("t", [{"conversations": [first, {**TURNS[1], "weight": 1}]}], test)
    assert task.train[0].input == [{"role": "user", "content": "Hi", "weight": 0}]  # nothing of it is learned


@pytest.mark.parametrize("weight", [0, 0.0, "0", 0.5, "heavy"])
@pytest.mark.parametrize(
    "row",
    [{"messages": CHAT}, {"conversations": TURNS}, {"question": "Why?", "answer": "So."}, {**FIRST, "output": "So."}],
)
def test_a_row_counts_as_one_or_is_refused(row: dict[str, Any], weight: object) -> None:
    with pytest.raises(DataError, match=r"row 1: the row has the weight .*, and every row counts as 1"):
        made({**row, "weight": weight})
    test = {"conversations": [{**TURNS[0], "value": "Bye"}, TURNS[1]]} if "conversations" in row else other(row)
    for one in (1, 1.0, "1", None, ""):
        assert task_from_dataset("t", [{**row, "weight": one}], [test]).train[0].target in ("Hello", "So.")


@pytest.mark.parametrize("column", ["sample_weight", "Loss_Weight", "example_weight"])
def test_a_weight_by_any_name_is_one_or_refused(column: str) -> None:
    with pytest.raises(DataError, match=rf"row 1: the row has the {column} 0.5, and every row counts as 1"):
        made({"messages": CHAT, column: 0.5})


def test_folders_of_other_tools_lose_no_column(tmp_path: Path) -> None:
    for name, row in (
        ("olora", {"sentence": "Why?", "text": "How?", "label": "a"}),
        ("superni", {"input": "Why?", "context": "It rained.", "output": "a"}),
    ):
        place = tmp_path / name / "t"
        place.mkdir(parents=True)
        (place / "labels.json").write_text('["a"]')
        for split, one in (("train", row), ("test", {column: f"{text}"[:3] for column, text in row.items()})):
            (place / f"{split}.json").write_text(json.dumps([one]))
    with pytest.raises(DataError, match=r"train.json, row 1: columns 'sentence' and 'text' both hold a text"):
        open_stream(tmp_path / "olora")
    with pytest.raises(DataError, match=r"train.json, row 1: column 'context' would change the prompt"):
        open_stream(tmp_path / "superni")


def test_a_definition_beside_whole_prompts_is_not_lost(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "t"
    place.mkdir(parents=True)
    for split in ("train", "test"):
        (place / f"{split}.json").write_text(json.dumps([{"prompt": f"Why {split}?", "answer": "So."}]))
    assert open_stream(tmp_path / "mine").tasks[0].train[0].target == "So."
    (place / "definition.json").write_text(json.dumps({"definition": "Be kind."}))
    with pytest.raises(DataError, match="task 't': its rows are prompts that are given as a whole, to which no"):
        open_stream(tmp_path / "mine")


HISTORY = {"history": [["Hi", "Hello"]]}


@pytest.mark.parametrize(
    ("more", "roles"), [(HISTORY, ["user", "assistant", "user"]), ({"system": "s"}, ["system", "user"])]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_alpaca_rows_are_chats_in_every_split_where_one_has_turns(
    more: dict[str, Any], roles: list[str], split: str
) -> None:
    plain, turns = {**FIRST, "output": "So."}, {**FIRST, "input": "How?", "output": "So.", **more}
    rows = {"train": [plain], "test": [plain | {"input": "Who?"}]} | {split: [turns]}
    task = task_from_dataset("t", rows["train"], rows["test"])
    other = task.test if split == "train" else task.train
    assert task.form == "chat"
    assert [message["role"] for message in getattr(task, split)[0].input] == roles
    assert other[0].input == [{"role": "user", "content": f"Answer.\n{'Who?' if split == 'train' else 'Why?'}"}]
    assert (task.train[0].target, task.test[0].target) == ("So.", "So.")


def test_a_file_or_an_entry_of_another_kind_is_named(tmp_path: Path) -> None:
    def opened(text: str) -> None:
        (tmp_path / "mine.yaml").write_text(text)
        open_stream(tmp_path / "mine.yaml")

    for value, found in (("true", "True"), ("3", "3"), ("[a]", r"\['a'\]")):
        with pytest.raises(
            DataError, match=f"task 't', 'train': must be a file, or the id .* on the hub, found {found}"
        ):
            opened(f"tasks: [{{name: t, train: {value}, test_fraction: 0.5}}]")
        with pytest.raises(
            DataError, match=f"task 't', 'test': must be a file, or the id .* on the hub, found {found}"
        ):
            opened(f"tasks: [{{name: t, train: a.jsonl, test: {value}}}]")
        (tmp_path / "dataset_info.json").write_text(f'{{"t_train": {value.replace("a", chr(34) + "a" + chr(34))}}}')
        with pytest.raises(DataError, match=f"entry 't_train': must be an object such as .*, found {found}"):
            opened("tasks: [{name: t, source: {kind: dataset-info, path: dataset_info.json}, test_fraction: 0.5}]")
    (tmp_path / "dataset_info.json").write_text('{"t_train": {"file_name": "a.json", "train": true}}')
    with pytest.raises(DataError, match="entry 't_train': 'train' is not understood here; wanted file_name"):
        opened("tasks: [{name: t, source: {kind: dataset-info, path: dataset_info.json}, test_fraction: 0.5}]")
