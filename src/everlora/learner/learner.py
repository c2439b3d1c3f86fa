"""Defines the Python face: a learner that is given tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

from torch import nn
from transformers import TrainerCallback

from everlora.archive.verdict import Depth, Verdict
from everlora.core.method import Method
from everlora.data.stream import TaskStream, own_stream
from everlora.data.task import Example, Task
from everlora.export.hub import Pushed, push
from everlora.export.targets import Target
from everlora.learner import experiment
from everlora.learner.notebook import Shown
from everlora.learner.opened import load_learner, restore, tasks_of
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.ask import answer, stream
from everlora.learner.verbs.compact import Compacted, compact
from everlora.learner.verbs.diff import Difference, diff
from everlora.learner.verbs.doctor import Health, doctor
from everlora.learner.verbs.evaluate import Evaluated, judge
from everlora.learner.verbs.export import Exported, export
from everlora.learner.verbs.forget import Forgotten, forget
from everlora.learner.verbs.learn import Learned, teach
from everlora.learner.verbs.repair import repair as mend
from everlora.learner.verbs.rollback import RolledBack, rollback
from everlora.learner.verbs.verify import keep_parity, verify
from everlora.metrics.scores import ScoreMatrix
from everlora.runtime.console import watched
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec, RawSettings
from everlora.settings.typed import LearnerSettings, SettingsHere

R = TypeVar("R")


class Learner(Shown):
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
        progress: is shown every step; by default bars, on a terminal and in a notebook.
        callbacks: of transformers, for the Trainer of every task.
        report_to: trackers that get one run over all tasks, as transformers names them: ``"tensorboard"``, ….
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
        callbacks: Sequence[TrainerCallback] = (),
        report_to: str | Sequence[str] = (),
        **settings: Unpack[LearnerSettings],
    ) -> None:
        composed, name = experiment.method_of(method)
        rate = composed.adapter.learning_rate
        spec = experiment.resolve(LearnerSpec, {"model": model, "method": name}, settings, rate=rate)
        base = experiment.load_for(spec, Path(out))
        shown = watched(progress, callbacks, report_to)
        self._learner = experiment.begin(spec, composed, base, Path(out), resume=resume, progress=shown)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        progress: Progress | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        report_to: str | Sequence[str] = (),
        **here: Unpack[SettingsHere],
    ) -> Learner:
        """Open a learner's folder; nothing else is needed, whatever became of the data of its tasks.

        Args:
            path: the folder.
            progress: is shown every step; by default bars, on a terminal and in a notebook.
            callbacks: of transformers, for the Trainer of every task.
            report_to: trackers that get a run of their own for what it learns.
            **here: settings of this process alone: ``device``, ``trust_remote_code``.

        Raises:
            EverloraError: no learner, a damaged one, or one on another base model than is found here.
        """
        opened = cls.__new__(cls)
        opened._learner = load_learner(Path(path), here, progress=watched(progress, callbacks, report_to))
        return opened

    def learn(
        self,
        task: Task,
        *,
        by: str | None = None,
        because: str | None = None,
        keep_probe: int = 0,
        may_lose: float | None = None,
        force: bool = False,
        forecast: bool = True,
        train: RawSettings | None = None,
    ) -> Learned:
        """Teach one more task; the data of earlier ones are not needed.

        Args:
            task: with its rows.
            by: who teaches it, for the history.
            because: why.
            keep_probe: how many test rows the learner may keep, to be judged by later.
            may_lose: points that earlier tasks may lose on average, on the test rows at hand.
            force: commit the task even if they lose more.
            forecast: say before the first step what earlier tasks will lose, and keep what later forecasts need.
            train: names of `transformers.TrainingArguments`, for this task alone.

        Raises:
            EverloraError: unusable data or settings, training that failed, or a folder that cannot be written.
        """
        budget: dict[str, Any] = {"may_lose": may_lose, "force": force, "train": {} if train is None else train}
        teaching = Teaching(by=by, because=because, keep_tests=keep_probe, forecast=forecast, **budget)
        return teach(self._learner, task, teaching)

    def ask(self, questions: Sequence[Any], *, task: str | None = None) -> list[str]:
        """Answer questions as rows of a task, by default the newest: texts, or lists of chat messages.

        Raises:
            EverloraError: no such task, or a question of another form than its rows.
        """
        return [one.answer for one in answer(self._learner, questions, task)]

    def stream(
        self, questions: Iterable[Any], *, task: str | None = None, show: Callable[[str], None] | None = None
    ) -> Iterator[str]:
        """Answer questions one by one as they come; ``show`` is given each answer piece by piece."""
        return (one.answer for one in stream(self._learner, questions, task, show))

    def evaluate(self, tests: Mapping[str, Sequence[Example]] | None = None, *, keep_probe: int = 0) -> Evaluated:
        """Score it as it is now on the test rows given or at hand, of which it may keep ``keep_probe`` of each task.

        Raises:
            EverloraError: no such task, or rows that cannot be used.
        """
        return judge(self._learner, tests, keep_probe)

    def rollback(
        self, to: str, *, discard: bool = False, by: str | None = None, because: str | None = None
    ) -> RolledBack:
        """Take the learner back to what it was right after the task ``to``; to ``start``, it knows nothing.

        Raises:
            EverloraError: no such task, or none behind it; the learner is as it was.
        """
        how: dict[str, Any] = {"by": by, "because": because, "discard": discard, "here": self._here}
        return self._opened_again(rollback(self._path, to, progress=self._learner.progress, **how))

    def forget(
        self,
        name: str,
        tasks: Mapping[str, Task] | None = None,
        *,
        rebuild: bool = False,
        by: str | None = None,
        because: str | None = None,
    ) -> Forgotten:
        """Let the learner forget the task ``name``; what is left of it is measured where rows are given.

        Args:
            name: of the task.
            tasks: tasks as they were learned, as far as their rows are at hand.
            rebuild: learn the later tasks again, as by a learner that was never taught it.
            by: who does it, for the history.
            because: why.

        Raises:
            EverloraError: no such task, or one that cannot be taken out; the learner is as it was.
        """
        how: dict[str, Any] = {"rebuild": rebuild, "by": by, "because": because, "here": self._here}
        return self._opened_again(forget(self._path, name, tasks, progress=self._learner.progress, **how))

    def compact(
        self,
        rank: int,
        *,
        discard: bool = False,
        dry_run: bool = False,
        by: str | None = None,
        because: str | None = None,
    ) -> Compacted:
        """Put the nearest update of ``rank`` in the place of the updates of all tasks, or tell what that would lose.

        Raises:
            EverloraError: a method whose past is no plain sum.
        """
        how: dict[str, Any] = {"by": by, "because": because, "discard": discard, "dry_run": dry_run}
        done = compact(self._path, rank, here=self._here, progress=self._learner.progress, **how)
        return self._opened_again(done) if done.done else done

    def diff(self, other: str | Path) -> Difference:
        """Compare the learner with another one, or with itself as it was after one of its tasks (``folder@task``).

        Raises:
            EverloraError: no learner, or no such task.
        """
        return diff(self._path, other)

    def verify(
        self,
        depth: Depth = "hashes",
        *,
        repair: bool = False,
        parity: float | bool = False,
        seconds: float | None = None,
    ) -> Verdict:
        """Look whether the folder is sound; ``repair`` it first, then write a ``parity`` of at most so many percent.

        Raises:
            EverloraError: a folder that cannot be read or written.
        """
        made = mend(self._path, self._here).repaired if repair else []
        found = verify(self._path, depth, seconds=seconds, here=self._here)
        if parity and not found.problems:
            found.notes.append(keep_parity(self._path, None if parity is True else parity))
        return found.model_copy(update={"repaired": made})

    def export(
        self, out: str | Path, *, to: Target | None = None, rank: int | None = None, dtype: str = "fp32"
    ) -> Exported:
        """Write the learner for another tool: a whole model, or one adapter; see `everlora.learner.verbs.export`.

        Raises:
            EverloraError: a learner that is no single model, or a place that holds something.
        """
        return export(self._path, Path(out), to=to, rank=rank, dtype=dtype, here=self._here)

    def push(self, repo: str, **how: Any) -> Pushed:
        """Put the learner on the Hub; see `everlora.export.hub.push` for what may be said of it.

        Raises:
            EverloraError: no such name, nothing to send, or the Hub refuses.
        """
        return push(self._path, repo, **how)

    def doctor(self) -> Health:
        """Look at this machine and the learner's folder, and say what to do about what is amiss."""
        return doctor(self._path)

    @property
    def _path(self) -> Path:
        return self._learner.folder.path

    @property
    def _here(self) -> RawSettings:
        spec = self._learner.spec
        return {"model": spec.model, "device": spec.device, "trust_remote_code": spec.trust_remote_code}

    def _opened_again(self, done: R) -> R:
        """Load the learner as it is now: what is folded into the base model is of the tasks of before."""
        self._learner = load_learner(self._path, self._here, progress=self._learner.progress)
        return done

    def follow(self, tasks: TaskStream | Sequence[Task]) -> ScoreMatrix:
        """Learn tasks in order and return the accuracy matrix; tasks that the folder holds already are not repeated.

        Raises:
            EverloraError: unusable data, training that failed, or a folder that cannot be written.
        """
        stream = experiment.limit_tasks(own_stream(tasks), self._learner.spec)
        return experiment.finish(self._learner, self._learner.follow(stream.tasks)).matrix

    @property
    def model(self) -> nn.Module:
        """Return the model as it stands after the latest task, for inference."""
        own = self._learner.method.consolidator.rule == "keep"  # then whatever was asked last is on
        if (own or self._learner.newest is None) and self._learner.folder.stages():
            return restore(self._learner, tasks_of(self._learner))
        return self._learner.inference_model()
