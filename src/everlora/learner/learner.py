"""Defines the Python face: a learner that is given tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from everlora.core.expressions import parse
from everlora.core.method import Method
from everlora.data.stream import TaskStream
from everlora.data.task import Task
from everlora.learner import experiment
from everlora.metrics.scores import ScoreMatrix
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec


class Learner:
    """Is one base model that learns task after task.

    >>> from everlora import Learner, open_stream
    >>> tasks = open_stream("builtin", tasks=["news", "reviews"], max_train_samples=8, max_eval_samples=4)
    >>> learner = Learner("tiny-bert", method="ella", out="my-learner", train={"max_steps": 1})
    >>> learner.follow(tasks).tasks
    ('news', 'reviews')
    >>> sum(parameter.requires_grad for parameter in learner.model.parameters())  # it answers, and learns no more
    0

    Args:
        model: packaged name, ``tiny-*``, folder, GGUF file or hub id.
        method: an expression such as ``"ella"`` or ``"ella(lam=0.3)+o-lora"``, or a composed `Method`.
        out: folder in which everything is written.
        resume: go on in a folder that holds this same learner.
        progress: is shown every step; silent by default.
        **settings: fields of `LearnerSpec`: ``train`` (names of `transformers.TrainingArguments`), ``lora`` (names of
            `peft.LoraConfig`), ``evaluation``, ``protocol``, ``dtype``, ``device``, ``seed``, …

    Raises:
        EverloraError: a setting, model or folder that cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        method: str | Method = "ella",
        out: str | Path,
        resume: bool = False,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        composed = parse(method) if isinstance(method, str) else method
        name = method if isinstance(method, str) else composed.expression or composed.name
        rate = composed.adapter.learning_rate
        spec = experiment.resolve(LearnerSpec, {"model": model, "method": name}, settings, rate=rate)
        base = experiment.load_for(spec, Path(out))
        self._learner = experiment.begin(
            spec, composed, base, Path(out), resume=resume, progress=progress or Progress()
        )

    def follow(self, tasks: TaskStream | Sequence[Task]) -> ScoreMatrix:
        """Learn tasks in order and return the accuracy matrix; tasks that the folder holds already are not repeated.

        Raises:
            EverloraError: unusable data, training that failed, or a folder that cannot be written.
        """
        stream = tasks if isinstance(tasks, TaskStream) else TaskStream(name="own", tasks=tuple(tasks))
        stream = experiment.limit_tasks(stream, self._learner.spec)
        return experiment.finish(self._learner, self._learner.follow(stream.tasks)).matrix

    @property
    def model(self) -> nn.Module:
        """Return the model as it stands after the latest task, for inference."""
        return self._learner.inference_model()
