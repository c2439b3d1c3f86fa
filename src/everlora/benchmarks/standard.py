"""The Standard CL benchmark (orders 1 to 3) and the long sequence of 15 tasks (orders 4 to 6).

Both are one table: `ORDERS`. The data come from a local folder, ``<data_dir>/<task>/{train,dev,test}.jsonl.gz`` with
``labels.json``, from O-LoRA's ``CL_Benchmark`` (`folders`), or from the hub (`standard_hub`). The instruction
sentences are our own wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.core.errors import DataError, nearest
from everlora.data.folders import read_folder, task_folder
from everlora.data.task import Task, TaskStream
from everlora.data.tasks import build_task

ORDERS: dict[str, dict[int, tuple[str, ...]]] = {
    name: {number: tuple(tasks.split()) for number, tasks in rows.items()}
    for name, rows in {
        "standard": {
            1: "dbpedia amazon yahoo agnews",
            2: "dbpedia amazon agnews yahoo",
            3: "yahoo amazon agnews dbpedia",
        },
        "long": {
            4: "mnli cb wic copa qqp boolqa rte imdb yelp amazon sst2 dbpedia agnews multirc yahoo",
            5: "multirc boolqa wic mnli cb copa qqp rte imdb sst2 dbpedia agnews yelp amazon yahoo",
            6: "yelp amazon mnli cb copa qqp rte imdb sst2 dbpedia agnews yahoo multirc boolqa wic",
        },
    }.items()
}

SENTIMENT = "Decide how the writer feels about the subject of this text."
TOPIC = "Decide which category this text belongs to."
RELATION = "Decide how sentence 2 relates to sentence 1."
SAME_MEANING = "Decide whether the two sentences mean the same."
PASSAGE = "Read the passage and decide whether the answer to the question is yes (True) or no (False)."
CANDIDATE = "Read the paragraph and decide whether the given answer to the question is correct."
WORD_SENSE = "Decide whether the word is used in the same sense in both sentences."
NONE = ""  # COPA: the question and its choices are part of the text


@dataclass(frozen=True)
class Subject:
    """What is known of a task of the table apart from its rows."""

    instruction: str
    labels: tuple[str, ...]


STARS = ("very negative", "negative", "neutral", "positive", "very positive")
DBPEDIA = (
    *("Company", "Educational Institution", "Artist", "Athlete", "Office Holder", "Mean of Transportation"),
    *("Building", "Natural Place", "Village", "Animal", "Plant", "Album", "Film", "Written Work"),
)
YAHOO = (
    *("Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet"),
    *("Sports", "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government"),
)

SUBJECTS: dict[str, Subject] = {
    "dbpedia": Subject(TOPIC, DBPEDIA),
    "amazon": Subject(SENTIMENT, STARS),
    "yahoo": Subject(TOPIC, YAHOO),
    "agnews": Subject(TOPIC, ("World", "Sports", "Business", "Science or Technology")),
    "yelp": Subject(SENTIMENT, STARS),
    "imdb": Subject(SENTIMENT, ("Good", "Bad")),
    "sst2": Subject(SENTIMENT, ("Good", "Bad")),
    "mnli": Subject(RELATION, ("neutral", "entailment", "contradiction")),
    "cb": Subject(RELATION, ("entailment", "contradiction", "neutral")),
    "rte": Subject(RELATION, ("contradiction", "entailment")),
    "qqp": Subject(SAME_MEANING, ("False", "True")),
    "boolqa": Subject(PASSAGE, ("True", "False")),
    "multirc": Subject(CANDIDATE, ("False", "True")),
    "wic": Subject(WORD_SENSE, ("True", "False")),
    "copa": Subject(NONE, ("A", "B")),
}


def standard(
    tasks: Sequence[str],
    *,
    name: str = "standard",
    data_dir: Path | None = None,
) -> TaskStream:
    """Load ``tasks`` of the table in the order given, from ``data_dir`` or, without one, from the hub.

    Raises:
        DataError: a task is unknown, the folder or a file is missing, a row is unusable, or the hub is unreachable.
    """
    for task in tasks:
        if task not in SUBJECTS:
            raise DataError(f"{name} has no task {task!r}{nearest(task, SUBJECTS)}")
    if data_dir is not None:
        for task in tasks:  # a missing folder is told before the others are read
            task_folder(data_dir, task, families=True)
    loaded = []
    notes = []
    for task in tasks:
        made, note = _from_hub(task) if data_dir is None else local_task(data_dir, task)
        loaded.append(made)
        notes.append(note)
    return TaskStream(name=name, tasks=tuple(loaded), note=" ".join(filter(None, notes)))


def local_task(data_dir: Path, name: str) -> tuple[Task, str]:
    """Load one task from ``data_dir/name``, or from O-LoRA's ``data_dir/<family>/<name>``.

    Raises:
        DataError: the train or test file is missing, or a row is unusable.
    """
    folder = task_folder(data_dir, name, families=True)
    found = read_folder(folder)
    return build_task(
        name,
        found.tables,
        labels=found.labels or SUBJECTS[name].labels,
        instruction=SUBJECTS[name].instruction,
        overlap="error" if found.kind is None else "drop",
        source=str(folder),
        left_out=found.left_out,
    )


def _from_hub(name: str) -> tuple[Task, str]:
    from everlora.benchmarks.standard_hub import hub_task

    return hub_task(name, SUBJECTS[name].labels, SUBJECTS[name].instruction)
