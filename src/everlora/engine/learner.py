"""One model's life: tasks come in, are learned one after another, and stay.

For each task: open an adapter, train it, take the update out, answer test rows, commit everything to the folder, let
the update join the past. A stage that is not committed never happened; a resumed learner rebuilds the past from the
committed updates and goes on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from everlora.core.errors import DataError, FolderError, TrainingError
from everlora.core.method import Method
from everlora.core.past import Past
from everlora.core.scores import Cell, ScoreMatrix
from everlora.core.sites import Sites
from everlora.core.spec import LearnerSpec
from everlora.core.task import Task
from everlora.engine import adapters, world
from everlora.engine.chain import Chain, collapse
from everlora.engine.evaluator import Scored, evaluate
from everlora.engine.models import Loaded
from everlora.engine.mount import Mount
from everlora.engine.progress import Progress, StepCallback
from everlora.engine.seeds import seed_for
from everlora.engine.stages import Stage, agree, stages
from everlora.engine.trainer import ClTrainer, Rows, arguments
from everlora.record.folder import Committed, RunFolder, write_rows


class Life:
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
        self.mount = Mount(base, spec.lora.model_dump(exclude_none=True), spec.past)
        self.past = Past()
        self.newest: Sites | None = None
        """The adapter of the latest stage, from which ``continue`` goes on."""

    def follow(self, tasks: Sequence[Task]) -> ScoreMatrix:
        """Learn ``tasks`` in order, going on after what the folder holds; return the accuracy matrix."""
        counts = [len(getattr(task, self.spec.evaluation.split)) for task in tasks]
        matrix = ScoreMatrix.empty([task.name for task in tasks], counts)
        planned, committed = stages(self.method, tasks), self.folder.stages()
        agree(committed, planned, self.folder.path)
        for task in tasks:
            self._look_at(task)
        self._forget()
        world.wait()  # nobody commits before everybody has read
        for stage in planned:
            if stage.number <= len(committed):
                row = self._recall(committed[stage.number - 1], stage)
                matrix = matrix.with_row(stage.row, [*row, *[None] * len(tasks)][: len(tasks)])  # tasks may be new
            else:
                matrix = matrix.with_row(stage.row, self.live_through(stage, tasks, matrix))
            if world.is_main():
                self.folder.write_matrix(matrix, self.kept())
                if stage.trains and stage.number >= len(committed):
                    self._export()  # after a crash between commit and export, too
            world.wait()
        return matrix

    def _look_at(self, task: Task) -> None:
        """Refuse, before anything is trained, a task that could not be learned or answered when its turn comes."""
        evaluation, family = self.spec.evaluation, self.base.family
        if not len(getattr(task, evaluation.split)):
            raise DataError(f"task {task.name!r} has no {evaluation.split} rows to be scored on")
        if evaluation.scoring == "labels" and not task.labels:
            raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
        family.check(task)

    def live_through(self, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix) -> list[Cell]:
        """Train, evaluate and commit one stage; return its row of scores."""
        began = time.perf_counter()
        if self.method.regime == "frozen":
            self._begin(stage)
            scored = self._evaluate(self.base.model, stage, tasks)
            return self._commit(stage, tasks, matrix, scored, None, {"seconds": time.perf_counter() - began})
        before = self.base.family.snapshot(self.base.model)
        try:
            return self._learn(stage, tasks, matrix, began)
        except BaseException:
            # A half-learned task leaves no trace in memory either: adapter off, head as it was.
            self.mount.close()
            self.base.family.restore(self.base.model, before)
            raise

    def _learn(self, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix, began: float) -> list[Cell]:
        model = self._open(stage)
        chain, history = self._train(stage, model)
        update = self.mount.extract()
        if not torch.stack([site.norm() for site in update.values()]).norm().isfinite():
            raise TrainingError(
                f"what was learned of task {stage.name!r} is NaN or infinite; tasks learned before are intact; "
                f"lower --learning-rate"
            )
        trained = time.perf_counter()
        warning = collapse(update, self.past) if self.method.penalties else None
        if warning:
            self.progress.warn(f"task {stage.name!r}: {warning}")
        scored = self._evaluate(model, stage, tasks)
        facts = {
            "seconds": {"train": trained - began, "evaluate": time.perf_counter() - trained},
            "warning": warning,
            "modules": chain.records,
            **history,
        }
        row = self._commit(stage, tasks, matrix, scored, update, facts)
        self._join(update)
        return row

    def _begin(self, stage: Stage) -> None:
        head = torch.Generator().manual_seed(seed_for(self.spec.seed, stage.number, "head"))
        self.base.family.begin(self.base.model, stage.tasks, head)

    def ready(self) -> nn.Module:
        """The model as it stands after the latest task, in eval mode, for inference.

        Raises:
            FolderError: the folder holds learned tasks that this learner has not been shown yet.
        """
        if self.newest is None and self.method.regime != "frozen" and self.folder.stages():
            raise FolderError(f"{self.folder.path} holds learned tasks; follow them first, then ask for the model")
        if self.method.consolidator.rule == "sum":
            self.mount.stand_on(self.past)
            return self.base.model.eval()
        if self.mount.peft is None and self.newest is not None:
            return self.mount.open(seed=0, start=self.newest).eval()
        return (self.mount.peft or self.base.model).eval()

    def _open(self, stage: Stage) -> nn.Module:
        self.mount.close()
        if self.method.consolidator.rule == "keep":
            self.base.family.reset()
        self._begin(stage)
        start = self.newest if self.method.adapter.policy == "continue" else None
        model = self.mount.open(seed=seed_for(self.spec.seed, stage.number, "adapter"), start=start)
        if self.method.consolidator.rule == "sum":
            self.mount.stand_on(self.past)
        return model

    def _train(self, stage: Stage, model: nn.Module) -> tuple[Chain, dict[str, Any]]:
        params = [p for p in model.parameters() if p.requires_grad]
        chain = Chain.build(
            params,
            self.mount.live(),
            self.past,
            self.method.penalties,
            task=stage.name,
            max_norm=float(self.spec.train["max_grad_norm"]),
            every=int(self.spec.train["logging_steps"]),
        )
        rows = Rows(self.base.family, stage.tasks)
        with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
            args = arguments(
                self.spec.train,
                folder=scratch,
                seed=seed_for(self.spec.seed, stage.number, "data"),
                cpu=self.base.precision.device.type == "cpu",
            )
            trainer = ClTrainer(
                self.base.family,
                chain,
                model=model,
                args=args,
                train_dataset=rows,
            )
            trainer.add_callback(StepCallback(self.progress, f"learning {stage.name}"))
            trainer.train()
        if rows.cut:
            self.progress.say(
                f"{stage.name}: {rows.cut} of {len(rows)} training texts were cut to --max-source-length"
            )
        return chain, {"training": trainer.state.log_history, "cut": rows.cut}

    def _evaluate(self, model: nn.Module, stage: Stage, tasks: Sequence[Task]) -> list[Scored]:
        last, schedule = stage.row == len(tasks) - 1, self.spec.evaluation.schedule
        seen = list(tasks[: stage.row + 1])
        if self.method.task_id_at_inference or (schedule == "diagonal" and not last):
            seen = [stage.tasks[0]]
        elif schedule == "final" and not last:
            seen = []
        scored = []
        for task in seen:
            self.progress.phase(f"answering {task.name}", len(getattr(task, self.spec.evaluation.split)))
            scored.append(
                evaluate(
                    model,
                    self.base.family,
                    task,
                    scoring=self.spec.evaluation.scoring,
                    batch_size=self.spec.evaluation.batch_size,
                    split=self.spec.evaluation.split,
                    progress=self.progress.advance,
                )
            )
            self.progress.done()
        return scored

    def _commit(
        self,
        stage: Stage,
        tasks: Sequence[Task],
        matrix: ScoreMatrix,
        scored: Sequence[Scored],
        update: Sites | None,
        facts: dict[str, Any],
    ) -> list[Cell]:
        scores = {s.task: s.score for s in scored}
        row = [scores.get(task.name) for task in tasks]
        if self.method.task_id_at_inference:
            # Each task is answered by its own adapter, which never changes again: a[i][j] = a[j][j].
            earlier = matrix.cells[stage.row - 1] if stage.row else (None,) * len(tasks)
            row = [old if new is None else new for old, new in zip(earlier, row, strict=True)]
        training, modules = facts.pop("training", []), facts.pop("modules", [])
        if world.is_main():
            sealed = {
                "row": row,
                "data": {task.name: task.digest() for task in stage.tasks},
                "labels": list(getattr(self.base.family, "labels", [])),
                **facts,
            }
            with self.folder.commit(stage.number, stage.name, sealed) as path:
                write_rows(path / "predictions.jsonl", [row for s in scored for row in s.rows()])
                if update is not None:
                    self.mount.save(path)
                    (path / "README.md").unlink(missing_ok=True)
                    write_rows(path / "training.jsonl", training)
                    write_rows(path / "modules.jsonl", modules)
        shown = "  ".join(f"{s.task} {s.score:.1f}" for s in scored)
        self.progress.say(f"{stage.number}. {stage.name}: {shown}")
        return row

    def _export(self) -> None:
        """Write the learner as it stands to the root, as one adapter."""
        assert self.newest is not None
        whole = self.past if self.method.consolidator.rule == "sum" else Past((self.newest,))
        latest = self.folder.stages()[-1].path
        _, rest = adapters.read(latest)
        adapters.write(self.folder.path, {name: whole.factors(name) for name in self.newest}, rest, like=latest)

    def _join(self, update: Sites) -> None:
        """Let a finished update join the past, and take the adapter off the model."""
        self.newest = update
        if self.method.consolidator.rule != "continue":
            self.past = self.past.append(update)
        self.mount.close()

    def _forget(self) -> None:
        """Back to the beginning: the past is recalled from the folder, whatever this object has lived through."""
        self.mount.close()
        self.past, self.newest = Past(), None
        self.base.family.reset()

    def _recall(self, committed: Committed, stage: Stage) -> list[Cell]:
        """Bring a committed stage back to mind without training it again."""
        if stage.trains:
            update, rest = adapters.read(committed.path)
            self._open(stage)
            self.mount.restore_head(rest)
            self._join(update)
        else:
            self._begin(stage)
        row: list[Cell] = committed.facts["row"]
        return row

    def kept(self) -> dict[str, Any]:
        """What is kept for the next task: elements of past updates, which the method's declaration must equal."""
        adapter = sum(site.numel for site in (self.newest or {}).values())
        elements = self.past.numel if self.method.consolidator.rule != "continue" else adapter
        return {"kept_elements": elements, "adapter_elements": adapter}
