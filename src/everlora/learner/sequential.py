"""One model's life: tasks come in, are learned one after another, and stay.

For each task: open an adapter, train it, take the update out, answer test rows, commit everything to the folder, let
the update join the past. A stage that is not committed never happened; a resumed learner rebuilds the past from the
committed updates and goes on.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from everlora.adapters import make_backend
from everlora.archive.folder import Committed, RunFolder, write_rows
from everlora.core.errors import FolderError, TrainingError
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import Initialiser, Merge
from everlora.core.updates import LowRankUpdates, Updates
from everlora.data.task import Task
from everlora.evaluation.evaluator import Evaluator
from everlora.evaluation.scoring import TaskScore
from everlora.learner.storage import stored
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.models.loading import Loaded
from everlora.runtime import world
from everlora.runtime.progress import Progress, warn
from everlora.runtime.seeds import seed_for
from everlora.settings.spec import LearnerSpec
from everlora.training import memory, rehearsal
from everlora.training.alarms import change, collapse
from everlora.training.chain import Chain
from everlora.training.evidence import observe
from everlora.training.initial import initialise
from everlora.training.stages import (
    Stage,
    check_same_tasks,
    matrix_row,
    stages,
    task_metadata,
    tasks_to_evaluate,
    validate_task,
)
from everlora.training.task_trainer import TaskTrainer


class SequentialLearner:
    """The engine of a learner: model, adapters, past, folder.

    Args:
        base: the loaded model.
        method: what to do about forgetting.
        spec: settings; its ``train`` entry is complete by now.
        folder: where everything is committed.
        progress: told of every step.
    """

    def __init__(self, base: Loaded, method: Method, spec: LearnerSpec, folder: RunFolder, progress: Progress) -> None:
        self.base, self.method, self.spec, self.folder, self.progress = base, method, spec, folder, progress
        self.backend = make_backend(base, spec.lora.model_dump(exclude_none=True), spec.past, method.adapter)
        self.past = UpdateHistory()
        self.newest: Updates | None = None  # the adapter of the latest stage, from which ``continue`` goes on
        self.changes: list[float] = []  # how much every task has changed, to tell one that collapsed
        self.memory: memory.Memory = {}
        self.kept_rows: list[Task] = []  # the rows of earlier tasks that were kept, to be rehearsed
        self.exported: dict[str, Any] = {}
        self.planned: Sequence[Stage] = ()
        self.evaluator = Evaluator(base, spec.evaluation)

    def follow(self, tasks: Sequence[Task]) -> ScoreMatrix:
        """Learn ``tasks`` in order, going on after what the folder holds; return the accuracy matrix."""
        counts = [len(getattr(task, self.spec.evaluation.split)) for task in tasks]
        matrix = ScoreMatrix.empty([task.name for task in tasks], counts)
        self.planned, committed = stages(self.method, tasks), self.folder.stages()
        check_same_tasks(committed, self.planned, self.folder.path)
        self.backend.plan_tasks(len(tasks))
        for task in tasks:
            validate_task(task, self.base.family, self.spec.evaluation, self.progress)
        self.reset()
        world.wait()  # nobody commits before everybody has read
        self.evaluator.before(self.folder, tasks, self.progress)
        for stage in self.planned:
            if stage.number <= len(committed):
                row = self.restore_task(committed[stage.number - 1], stage)
                matrix = matrix.with_row(stage.row, [*row, *[None] * len(tasks)][: len(tasks)])  # tasks may be new
            else:
                matrix = matrix.with_row(stage.row, self.run_task(stage, tasks, matrix))
            if world.is_main() and stage.number >= len(committed):
                if stage.trains:
                    self._export()  # after a crash between commit and export, too
                self.folder.write_matrix(matrix, self.storage())
            world.wait()
        return matrix

    def run_task(self, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix) -> list[Cell]:
        """Train, evaluate and commit one stage; return its row of scores."""
        began = time.perf_counter()
        if self.method.regime == "frozen":
            self._begin(stage)
            scored = self._ask(self.base.model, stage, tasks)
            return self._commit(stage, tasks, matrix, scored, None, {"seconds": time.perf_counter() - began})
        before = self.base.family.snapshot(self.base.model)
        try:
            return self.train_task(stage, tasks, matrix, began)
        except BaseException:
            # A half-learned task leaves no trace in memory either: adapter off, head as it was.
            self.backend.detach()
            self.base.family.restore(self.base.model, before)
            raise

    def train_task(self, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix, began: float) -> list[Cell]:
        model = self._open(stage)
        initialiser = self.method.initialiser
        if initialiser and (self.newest is not None or initialiser.needs.first_task):
            self._initialise(initialiser, stage, model)
        chain, history = self._train(stage, model)
        update: Updates = self.backend.extract()
        if not torch.stack([site.norm() for site in update.values()]).norm().isfinite():
            raise TrainingError(
                f"what was learned of task {stage.name!r} is NaN or infinite; tasks learned before are intact; "
                f"lower --learning-rate"
            )
        trained = time.perf_counter()
        if self.method.penalties:
            chain.warnings += warn(self.progress, stage.name, collapse(change(update, self._started()), self.changes))
        grown = self._remember(stage, model, update)
        update = memory.finished(self.method, self.backend, update, self.newest, stage.number)
        rows, lacking = rehearsal.select_rows(self.method.rehearsal, stage.tasks, self.spec.seed)
        chain.warnings += warn(self.progress, stage.name, lacking)
        with tempfile.TemporaryDirectory(prefix="everlora-") as saved:
            self.backend.save(Path(saved))
            scored = self._ask(self._answering(model, update), stage, tasks)
            facts = {
                "seconds": {"train": trained - began, "evaluate": time.perf_counter() - trained},
                "warning": "; ".join(chain.warnings) or None,
                "strengths": chain.strengths(),
                "modules": chain.records,
                **rehearsal.counted(rows),
                **history,
            }
            memory.write(Path(saved), grown)
            rehearsal.write(Path(saved), self.method.rehearsal, rows)
            row = self._commit(stage, tasks, matrix, scored, Path(saved), facts)
        self.append_update(update, grown, rows)
        return row

    def _started(self) -> Updates | None:
        """Where the adapter of this stage started, if it goes on from the one before."""
        return self.newest if self.method.consolidator.rule == "continue" else None

    def _answering(self, model: nn.Module, update: Updates) -> nn.Module:
        """The model that answers after a task: as trained, or standing on what the tasks are merged into."""
        if self.method.merge is None:
            return model
        self.backend.detach()
        self.backend.set_past(self.past.append(cast(LowRankUpdates, update)), self._view("infer"))
        return self.base.model

    def _view(self, when: Literal["train", "infer"]) -> Merge | None:
        """The merge, if this is when the method wants the past merged."""
        merge = self.method.merge
        return merge if merge and getattr(merge, when) == "merged" else None

    def _initialise(self, part: Initialiser, stage: Stage, model: nn.Module) -> None:
        """Start the adapter from the past, in the light of a few rows of the new task."""
        updates = list(self.past) or ([] if self.newest is None else [cast(LowRankUpdates, self.newest)])
        known = self.memory.get(part.name, {})
        initialise(part, stage, model, self.base.family, self.backend, self.spec.seed, updates=updates, known=known)

    def _remember(self, stage: Stage, model: nn.Module, update: Updates) -> memory.Memory:
        """What the parts remember now that a task has ended at ``update``."""
        return memory.remember(
            self.method.remembering,
            self.memory,
            update,
            continued=self.method.consolidator.rule == "continue",
            look=lambda part: observe(part, stage, model, self.base.family, self.backend, self.spec.seed),
        )

    def _begin(self, stage: Stage) -> None:
        head = torch.Generator().manual_seed(seed_for(self.spec.seed, stage.seeded, "head"))
        rehearsed = rehearsal.draw_rows(self.method.rehearsal, self.kept_rows, self.spec.seed, stage.number)
        self.base.family.prepare(self.base.model, [*stage.tasks, *rehearsed], head)

    def inference_model(self) -> nn.Module:
        """The model as it stands after the latest task, in eval mode, for inference.

        Raises:
            FolderError: the folder holds learned tasks that this learner has not been shown yet.
        """
        if self.newest is None and self.method.regime != "frozen" and self.folder.stages():
            raise FolderError(f"{self.folder.path} holds learned tasks; follow them first, then ask for the model")
        if self.method.consolidator.rule == "sum":
            self.backend.set_past(self.past, self._view("infer"))
            return self.base.model.eval()
        if self.backend.model is None and self.newest is not None:
            self.backend.attach(seed=0, start=self.newest)
            if self.backend.needs_past:
                self.backend.set_past(UpdateHistory(self.past.deltas[:-1]))
        return (self.backend.model or self.base.model).eval()

    def _open(self, stage: Stage) -> nn.Module:
        self.backend.detach()
        if self.method.consolidator.rule == "keep":
            self.base.family.reset()
        self._begin(stage)
        seed = seed_for(self.spec.seed, stage.seeded, "adapter")
        model = self.backend.attach(seed=seed, start=self._started(), tasks=stage.tasks)
        if self.method.consolidator.rule == "sum" or self.backend.needs_past:
            self.backend.set_past(self.past, self._view("train"))
        return model

    def _train(self, stage: Stage, model: nn.Module) -> tuple[Chain, dict[str, Any]]:
        started, past = self._started(), self.past
        if started is not None:
            started = self.backend.extract() if self.method.initialiser else started  # which may have moved it
            past = UpdateHistory((cast(LowRankUpdates, started),)) if self.method.adapter.low_rank else UpdateHistory()
        lesson = TaskTrainer(self.base, self.method, self.spec, self.backend, stage, past, started, self.memory)
        earlier = [task for before in self.planned[: stage.number - 1] for task in before.tasks]
        return lesson.train(model, self.kept_rows, earlier, first=self.newest is None, progress=self.progress)

    def _ask(self, model: nn.Module, stage: Stage, tasks: Sequence[Task]) -> list[TaskScore]:
        due = tasks_to_evaluate(stage, tasks, self.spec.evaluation.schedule, self.method, self.evaluator.ahead)
        return self.evaluator.evaluate(model, due, self.progress)

    def _commit(
        self,
        stage: Stage,
        tasks: Sequence[Task],
        matrix: ScoreMatrix,
        scored: Sequence[TaskScore],
        saved: Path | None,
        facts: dict[str, Any],
    ) -> list[Cell]:
        row = matrix_row(stage, tasks, {s.task: s.score for s in scored}, matrix, self.method)
        training, modules = facts.pop("training", []), facts.pop("modules", [])
        if world.is_main():
            sealed = {
                "row": row,
                **task_metadata(stage.tasks),
                **self.evaluator.facts(),
                "labels": list(getattr(self.base.family, "labels", [])),
                **facts,
            }
            with self.folder.commit(stage.number, stage.name, sealed) as path:
                write_rows(path / "predictions.jsonl", [row for s in scored for row in s.rows()])
                if saved is not None:
                    for file in saved.iterdir():
                        shutil.copy(file, path)
                    write_rows(path / "training.jsonl", training)
                    write_rows(path / "modules.jsonl", modules)
        self.progress.info(f"{stage.number}. {stage.name}: {self.evaluator.shown(scored)}")
        return row

    def _export(self) -> None:
        """Write the learner as it stands to the root, as one adapter."""
        assert self.newest is not None
        newest, latest = cast(LowRankUpdates, self.newest), self.folder.stages()[-1].path
        past = self.past if self.method.consolidator.rule == "sum" else UpdateHistory((newest,))
        self.exported = self.backend.export(self.folder.path, latest, past, self._view("infer"))

    def append_update(self, update: Updates, grown: memory.Memory, rows: Sequence[Task]) -> None:
        """Let a finished update join the past, and take the adapter off the model."""
        if self.method.adapter.low_rank or self._started() is not None:  # what is fresh elsewhere started at no 0
            self.changes.append(change(update, self._started()))
        self.newest, self.memory = update, grown
        self.kept_rows = [*self.kept_rows, *rows]
        if self.method.consolidator.rule != "continue":
            self.past = self.past.append(cast(LowRankUpdates, update))
        self.backend.detach()

    def reset(self) -> None:
        """Back to the beginning: the past is recalled from the folder, whatever this object has lived through."""
        self.backend.detach()
        self.past, self.newest, self.changes, self.memory, self.kept_rows = UpdateHistory(), None, [], {}, []
        self.base.family.reset()

    def restore_task(self, committed: Committed, stage: Stage) -> list[Cell]:
        """Bring a committed stage back to mind without training it again."""
        if stage.trains:
            update, rest = self.backend.load(committed.path)
            self._open(stage)
            self.backend.restore_head(rest)
            rows = rehearsal.read(committed.path, self.method.rehearsal, stage.tasks)
            self.append_update(update, memory.read(committed.path), rows)
        else:
            self._begin(stage)
        return cast(list[Cell], committed.facts["row"])

    def storage(self) -> dict[str, Any]:
        """What is kept for the next task, see `stored`, and how the root was exported."""
        past = None if self.method.consolidator.rule == "continue" else self.past
        return {**stored(past, self.newest or {}, self.memory, self.kept_rows), **self.exported}
