"""Lets a learner answer questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from everlora.archive.outcome import Outcome
from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.data.tasks import LONE_SURROGATE
from everlora.evaluation.scoring import answer_rows
from everlora.evaluation.written import Shown
from everlora.learner.opened import load_learner, restore, task_named, tasks_of
from everlora.learner.sequential import SequentialLearner
from everlora.models.families.writer import Writer
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings


class Answered(Outcome):
    """Holds an answer, and as a row of which task the question was read."""

    question: Any
    answer: str
    task: str


def ask(
    path: Path,
    questions: Sequence[Any],
    *,
    task: str | None = None,
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> list[Answered]:
    """Let a learner answer questions as rows of one of its tasks.

    Args:
        path: the learner's folder.
        questions: texts; lists of chat messages where the task's rows are chats.
        task: by its name; the newest by default.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown what is done.

    Raises:
        EverloraError: no such task, or a folder or question that cannot be used.
    """
    # Nothing is written: a disk that is read only, or another process that teaches, keeps nobody from asking.
    return answer(load_learner(path, here, progress=progress, read_only=True), questions, task)


def answer(learner: SequentialLearner, questions: Sequence[Any], task: str | None = None) -> list[Answered]:
    """Let a learner that is loaded answer; see `ask`."""
    model, chosen = prepared(learner, task)
    return answers_of(learner, model, chosen, questions)


def stream(
    learner: SequentialLearner,
    questions: Iterable[Any],
    task: str | None = None,
    show: Callable[[str], None] | None = None,
) -> Iterator[Answered]:
    """Let a learner answer questions one by one, each before the next is taken; see `ask`.

    Args:
        learner: that is loaded.
        questions: may come at any time.
        task: by its name; the newest by default.
        show: is given an answer piece by piece, while it is written.
    """
    model, chosen = prepared(learner, task)
    family = learner.base.family
    for question in questions:
        shown = Shown(family, chosen, show) if show is not None and isinstance(family, Writer) else None
        try:
            if isinstance(family, Writer):
                family.streamer = shown
            (answered,) = answers_of(learner, model, chosen, [question])
        finally:
            if isinstance(family, Writer):
                family.streamer = None
        if shown is not None:
            shown.finish(answered.answer)
        elif show is not None:
            show(answered.answer)
        yield answered


def prepared(learner: SequentialLearner, task: str | None) -> tuple[nn.Module, Task]:
    """Return the model that answers as a row of a task, and that task."""
    known = tasks_of(learner)
    chosen = task_named(learner.folder.path, known, task)
    return restore(learner, known, chosen), chosen


def answers_of(learner: SequentialLearner, model: nn.Module, task: Task, questions: Sequence[Any]) -> list[Answered]:
    """Let a model answer questions as rows of a task."""
    rows = [Example(question_of(question, task), next(iter(task.labels), "-")) for question in questions]
    probed = replace(task, test=rows)
    learner.base.family.check(probed)
    answers = answer_rows(
        model,
        learner.base.family,
        probed,
        rows,
        learner.spec.evaluation.scoring if task.labels else "generate",
        batch_size=learner.spec.evaluation.batch_size,
    )
    return [Answered(question=q, answer=a, task=task.name) for q, a in zip(questions, answers, strict=True)]


def question_of(question: Any, task: Task) -> Any:
    """Return a question in the form of a task's rows.

    Raises:
        DataError: it has another form.
    """
    if task.form == "image":
        raise DataError(f"task {task.name!r} is about pictures; ask it in Python, see everlora.Learner.model")
    if isinstance(question, str) and LONE_SURROGATE.search(question):
        raise DataError("the question is not UTF-8; mend its text")
    if task.form == "chat" and isinstance(question, str):
        return [{"role": "user", "content": question}]
    if task.form != "chat" and not isinstance(question, str):
        raise DataError(f"task {task.name!r} has texts for rows, and the question is none; give a text")
    if task.form == "chat" and not isinstance(question, str):
        plain = isinstance(question, list) and all(_is_message(one) for one in question)
        if not question or not plain:
            raise DataError("the question must be a list of messages, each with role and content")
        return question
    if isinstance(question, str) and not question.strip():
        raise DataError("the question is empty; give a text")
    return question


def _is_message(value: Any) -> bool:
    """Return whether a value is an object with a role and a text."""
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))
