"""Fifteen tasks of Super-NaturalInstructions (Wang et al. 2022), as SAPT (Zhao et al. 2024) learns them; its orders.

The data come from a folder ``<data_dir>/<task>/{train,dev,test}``, in JSON Lines with ``definition.json`` beside, or
as SAPT writes them. A row may have several accepted answers: the first is learned. SAPT scores every task by ROUGE-L
of stems, classification too, and against the first answer; we take the best of the accepted ones, as the benchmark's
authors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.core.errors import DataError
from everlora.data.folders import read_folder, task_folder
from everlora.data.task import Task, TaskStream
from everlora.data.tasks import build_task

METRIC = "rouge_l_stemmed"
NAMES = {
    name.partition("_")[0]: name
    for name in (
        *("task002_quoref_answer_generation", "task073_commonsenseqa_answer_generation"),
        *("task1290_xsum_summarization", "task1510_evalution_relation_extraction", "task1572_samsum_summary"),
        *("task1590_diplomacy_text_generation", "task1687_sentiment140_classification"),
        *("task1729_personachat_generate_next", "task181_outcome_extraction"),
        *("task363_sst2_polarity_classification", "task511_reddit_tifu_long_text_summarization"),
        *("task591_sciq_answer_generation", "task639_multi_woz_user_utterance_generation"),
        *("task748_glucose_reverse_cause_event_detection", "task875_emotion_classification"),
    )
}


def _order(numbers: str) -> tuple[str, ...]:
    return tuple(NAMES[f"task{number}"] for number in numbers.split())


ORDERS = {
    1: _order("1572 363 1290 181 002 1510 639 1729 073 1590 748 511 591 1687 875"),
    2: _order("748 073 1590 639 1572 1687 591 363 1510 1729 181 511 002 1290 875"),
}


def superni(tasks: Sequence[str], *, data_dir: Path | None) -> TaskStream:
    """Load ``tasks`` in the order given.

    Raises:
        DataError: there is no folder, or a row is unusable.
    """
    if data_dir is None:
        raise DataError("superni is on no hub; give --data-dir its folder, with <task>/train.json and test.json")
    folders = {name: task_folder(data_dir, name, families=True) for name in tasks}
    made = [superni_task(name, folder) for name, folder in folders.items()]
    notes = " ".join(note for _, note in made if note)
    return TaskStream(name="superni", tasks=tuple(task for task, _ in made), note=notes)


def superni_task(name: str, folder: Path) -> tuple[Task, str]:
    """Load one task; returns it and a sentence on rows left out.

    Raises:
        DataError: a split is missing, or a row is unusable.
    """
    found = read_folder(folder, "superni")
    return build_task(
        name,
        found.tables,
        labels=found.labels,
        instruction=found.definition,
        overlap="drop",
        metric=METRIC,
        source=str(folder),
        left_out=found.left_out,
    )
