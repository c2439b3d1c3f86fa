"""TRACE (Wang et al. 2023): eight tasks in English, Chinese and German, each with a metric of its own; order 7.

The data come from a folder ``<data_dir>/<task>/{train,eval,test}`` as TRACE writes it (``.json``) or in JSON Lines;
eval is our dev. Prompts are shown as they are. Rows of train whose prompt and answer test has too are left out and
counted, for the original has such rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.core.errors import DataError
from everlora.data.folders import read_folder, task_folder
from everlora.data.task import Task, TaskStream
from everlora.data.tasks import build_task

ORDERS = {7: tuple(["C-STANCE", "FOMC", "MeetingBank", "Py150", "ScienceQA", "NumGLUE-cm", "NumGLUE-ds", "20Minuten"])}


@dataclass(frozen=True)
class Subject:
    """What is known of a task apart from its rows: metric, the closed set of answers if there is one, its subject."""

    metric: str
    labels: tuple[str, ...]
    about: str


SUBJECTS: Mapping[str, Subject] = {
    "C-STANCE": Subject("exact_match_raw", ("A", "B", "C"), "stance, in Chinese"),
    "FOMC": Subject("exact_match_raw", ("A", "B", "C"), "monetary-policy stance"),
    "MeetingBank": Subject("rouge_l", (), "summaries of council meetings"),
    "Py150": Subject("edit_similarity", (), "next line of Python code"),
    "ScienceQA": Subject("accuracy_first_character", (), "choice and explanation"),
    # Compared raw: `exact_match` deletes punctuation, and 3.5 would be 35.
    "NumGLUE-cm": Subject("exact_match_raw", (), "arithmetic with common sense"),
    "NumGLUE-ds": Subject("exact_match_raw", (), "arithmetic of the sciences"),
    "20Minuten": Subject("sari", (), "simplification, in German"),
}


def trace(tasks: Sequence[str], *, data_dir: Path | None) -> TaskStream:
    """Load ``tasks`` in the order given.

    Raises:
        DataError: there is no folder, or a row is unusable.
    """
    if data_dir is None:
        raise DataError("TRACE is on no hub; give --data-dir its folder, with <task>/train.json, eval.json, test.json")
    folders = {name: task_folder(data_dir, name) for name in tasks}
    made = [trace_task(name, folder) for name, folder in folders.items()]
    notes = " ".join(note for _, note in made if note)
    return TaskStream(name="trace", tasks=tuple(task for task, _ in made), note=notes)


def trace_task(name: str, folder: Path) -> tuple[Task, str]:
    """Load one task; returns it and a sentence on rows left out.

    Raises:
        DataError: a split is missing, or a row is unusable.
    """
    found = read_folder(folder, "trace")
    subject = SUBJECTS[name]
    return build_task(
        name,
        found.tables,
        labels=subject.labels,
        overlap="drop",
        metric=subject.metric,
        source=str(folder),
        left_out=found.left_out,
    )
