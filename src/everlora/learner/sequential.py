"""Learns tasks one after another with one model: what happens to one task, on one page.

                         follow(tasks)
                               │ for each stage: most often one task
              committed ───────┴─────── new
                 │                       │
           restore_task              run_task
                 │                       │
                 │         snapshot      the head as it is, should the task fail
                 │         attach        a head for the labels; an adapter, fresh or continued; the past below it
                 │         initialise    from earlier updates and a few rows, if the method has a part for that
                 │         forecast      what earlier tasks will lose, if the teacher wants to know
                 │         train         rows, and rows of earlier tasks; penalties and transforms on the gradient
                 │         extract       the update, on the CPU in fp32; refused if it is not finite, shortened if it
                 │                       costs earlier tasks more than its teacher allows
                 │         remember      what parts carry to later tasks; which rows are stored
                 │         commit        adapter, head, memory, rows and facts, in place at once or not at all
                 │         score         tasks so far: a row of the matrix, committed by itself
                 │                       │
            load, attach,                │
            restore the head             │
                 │                       │
                 └────── append_update ──┘   the update joins the history, the adapter comes off
                               │
                     export, matrix.json     the learner as one adapter at the root of the folder

A stage without its COMMIT never happened, and one that is committed stands, scored or not: whatever ends a process, a
learner that is resumed rebuilds the history from the committed stages and goes on, bit for bit as if nothing had been.
One training step is drawn in `everlora.training.chain`; the files are listed in `everlora.archive.folder`.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import cast

from torch import nn

from everlora.archive.atomic import copy_checked, explained
from everlora.archive.committed import Committed
from everlora.archive.folder import RunFolder
from everlora.archive.records import Seconds
from everlora.archive.schema import write_rows
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.updates import LowRankUpdates, Updates
from everlora.data.task import Task
from everlora.evaluation.evaluator import Evaluator
from everlora.learner import forecast as forecasts
from everlora.learner.forgetting_budget import check_budget, within_budget
from everlora.learner.learned import TESTS, LearnedTask, select_tests, stage_facts
from everlora.learner.scoring import count_rows, score
from everlora.learner.standing import bring_back, in_memory, write_root
from everlora.learner.state import LearnerState
from everlora.learner.work import make_plan
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.models.families.feature_cache import FeatureCache
from everlora.models.loading import Loaded
from everlora.runtime import world
from everlora.runtime.progress import Progress, spent, warn
from everlora.settings.spec import LearnerSpec
from everlora.training import forecast_summary, memory, rehearsal
from everlora.training.alarms import check_finite
from everlora.training.calibration import FILE as PROBES
from everlora.training.checkpoint import FOLDER, Checkpoint
from everlora.training.evidence import observe
from everlora.training.initial import initialise
from everlora.training.stages import (
    Stage,
    check_enough_rows,
    check_same_tasks,
    shared_rows,
    stages,
    validate_task,
)
from everlora.training.task_trainer import TaskTrainer, TrainingResult
from everlora.training.trial import check_runs


class SequentialLearner(LearnerState):
    """Learns tasks with one model, and commits each of them to a folder.

    Args:
        base, method, spec, folder: see `LearnerState`.
        progress: is shown every step.
    """

    shared: Path | None = None
    """In which the runs of a sweep share first tasks, see `everlora.training.shared`."""

    def __init__(self, base: Loaded, method: Method, spec: LearnerSpec, folder: RunFolder, progress: Progress) -> None:
        super().__init__(base, method, spec, folder)
        self.progress = progress
        if spec.feature_cache not in (None, "off"):
            self.features = FeatureCache(Path(spec.feature_cache), progress.warn)
            self.features.check_place(folder.path, Path(spec.model))
        self.evaluator = Evaluator(base, spec.evaluation)
        self.plan: Sequence[Stage] = ()

    def follow(self, tasks: Sequence[Task]) -> ScoreMatrix:
        """Learn ``tasks`` in order, going on after what the folder holds; return the accuracy matrix.

        Raises:
            EverloraError: tasks or a folder that cannot be used, or training that failed.
        """
        with self.writing():
            return self._follow(tasks)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes, but those of this run, from writing to the folder."""
        with ExitStack() as held:
            world.on_main(lambda: held.enter_context(self.folder.writing(self.progress.warn)))
            yield

    def _follow(self, tasks: Sequence[Task]) -> ScoreMatrix:
        self.plan, committed = stages(self.method, tasks), self.folder.stages()
        check_same_tasks(committed, self.plan, self.folder.path)
        matrix = ScoreMatrix.empty(
            [task.name for task in tasks], count_rows(tasks, committed, self.spec.evaluation.split)
        )
        self.backend.plan_tasks(len(tasks))
        here = [task for task in tasks if task.remembered is None]
        for task in here:
            # Every task, before the first is trained: a bad row in the last must not end a run of days.
            validate_task(task, self.base.family, self.spec.evaluation, self.progress)
        for stage in (one for one in self.plan if one.trains and all(task.remembered is None for task in one.tasks)):
            check_enough_rows(self.spec, stage, world.size())
        for line in shared_rows(tasks) if self.base.family.head else ():
            self.progress.warn(line)
        if self.base.fresh:
            names = ", ".join(self.base.fresh)
            how = "they are drawn from a fixed seed, and written with what is learned"
            self.progress.warn(f"the checkpoint has no weights for {names}; {how}")
        # The folder alone is believed: memory counts where it is of the tasks that are committed.
        if not (known := in_memory(self, committed)):
            self.reset()
        world.wait()  # nobody commits before everybody has read
        check_runs(self.base, self.base.model, here)
        self.evaluator.measure_baseline(self.folder, here, self.progress)
        self.progress.plan(make_plan(self, tasks, committed))
        for stage in self.plan:
            if stage.number <= len(committed):
                done = committed[stage.number - 1]
                model = self.base.model if known else bring_back(self, done, stage, last=done is committed[-1])
                row = self.recall(done, stage, tasks, matrix, model)
            else:
                row = self.run_task(stage, tasks, matrix)
                self.standing = (*self.standing, self.folder.stages()[-1].seal.commit)
                self.progress.end_stage({t.name: s for t, s in zip(tasks, row, strict=True) if s is not None})
            matrix = matrix.with_row(stage.row, row)
            if stage.number >= len(committed):  # of the last committed stage, too: a crash may have come between
                new = stage.number > len(committed)
                world.on_main(functools.partial(write_root, self, stage, matrix, new=new))
            world.wait()
        return matrix

    def recall(
        self, committed: Committed, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix, model: nn.Module
    ) -> list[Cell]:
        """Return the row of a stage that was brought back; it is scored if a process ended before that."""
        if not committed.evaluated:
            return score(self, stage, tasks, matrix, self.answering_model(model))
        self.backend.detach()
        return [*committed.facts.row, *[None] * len(tasks)][: len(tasks)]  # there may be more tasks than there were

    def run_task(self, stage: Stage, tasks: Sequence[Task], matrix: ScoreMatrix) -> list[Cell]:
        """Learn one stage as the drawing above shows; return its row of the matrix."""
        if not stage.trains:
            self.prepare_head(stage)
            self.commit(stage, 0.0)
            return score(self, stage, tasks, matrix, self.base.model)
        started = time.perf_counter()
        # The head grows in the base model itself: what taking the adapter off does not undo.
        snapshot = self.base.family.snapshot(self.base.model)
        try:
            model = self.attach_adapter(stage)
            check_runs(self.base, model, stage.tasks if stage is self.plan[0] else ())  # with the adapter, once
            self.initialise_adapter(stage, model)
            seen = forecasts.look(self, stage, model)
            expected = forecasts.forecast(self, stage, seen)
            check_budget(self, stage, expected)
            training = self.train_task(stage, model)
            update, spent = within_budget(self, stage, model, self.extract_update(stage), seen)
            training = training.as_taken()
            seconds = Seconds(train=time.perf_counter() - started + training.elsewhere)
            warnings = training.chain.warnings
            warnings += warn(self.progress, stage.name, self.amiss(update, training.log))
            # With the adapter still on, since evidence is measured by passes through the model.
            remembered = self.remember(stage, model, update)
            probes = self.calibration.draw(stage, self.spec.seed)
            probed = self.calibration.measure(model, self.base.family, probes)
            # A part may have the last word: what answers from now on is then written into the adapter.
            update = memory.finished(self.method, self.backend, update, self.newest, stage.number)
            rows, missing = rehearsal.select_rows(self.method.rehearsal, stage.tasks, self.spec.seed)
            warnings += warn(self.progress, stage.name, missing)
            with explained(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="everlora-") as place:
                scratch = Path(place)
                self.backend.save(scratch)
                self.backend.check_saved(scratch, update)
                memory.write(scratch, remembered)
                rehearsal.write(scratch, self.method.rehearsal, rows)
                rehearsal.write_rows(scratch / PROBES, probes)
                rehearsal.write_rows(
                    scratch / TESTS, select_tests(stage.tasks, self.teaching.keep_tests, self.spec.seed)
                )
                forecast_summary.write(scratch, forecasts.summarise(self, stage, model, seen))
                learned = LearnedTask(update, remembered, rows, probes, probed, training, scratch, spent, expected)
                self.commit(stage, seconds, learned)
            if (checkpoint := self.checkpoint(stage)) is not None:
                checkpoint.clear()
            # Only behind the commit: if writing fails, memory and folder still say the same.
            self.append_update(update, remembered, rows)
            self.calibration.append(probes, probed, training.predicted_rise)
        except BaseException:
            # A half-learned task leaves no trace in memory either: adapter off, head as it was.
            self.backend.detach()
            self.base.family.restore(self.base.model, snapshot)
            raise
        return score(self, stage, tasks, matrix, self.answering_model(model))

    # --- the steps of `run_task`; those that a restored task takes, too, are in `everlora.learner.state` -------------

    def initialise_adapter(self, stage: Stage, model: nn.Module) -> None:
        """Start the adapter from the past and a few rows of the new task, if the method does so."""
        part = self.method.initialiser
        if part is None or (self.newest is None and not part.needs.first_task):
            return
        # One adapter that goes on leaves no history; what it is now is the past.
        updates = list(self.past) or ([] if self.newest is None else [cast(LowRankUpdates, self.newest)])
        known = self.memory.get(part.name, {})
        initialise(part, stage, model, self.base.family, self.backend, self.spec.seed, updates=updates, known=known)

    @spent("training")
    def train_task(self, stage: Stage, model: nn.Module) -> TrainingResult:
        """Train the adapter that is on the model."""
        memory.check_fits(self.method.remembering, self.backend.trainable())
        start, past = self.adapter_start(), self.past
        if start is not None:  # parts see the one adapter that all tasks train as the past
            start = self.backend.extract() if self.method.initialiser else start  # an initialiser may have moved it
            past = UpdateHistory((cast(LowRankUpdates, start),)) if self.method.adapter.low_rank else UpdateHistory()
        so_far = (past, start, self.memory, self.calibration.ratio)
        checkpoint = self.checkpoint(stage)
        trainer = TaskTrainer(self.base, self.method, self.spec, self.backend, stage, *so_far, checkpoint, self.shared)
        earlier = [task for before in self.plan[: stage.number - 1] for task in before.tasks]
        return trainer.train(model, self.stored_rows, earlier, first=self.newest is None, progress=self.progress)

    def checkpoint(self, stage: Stage) -> Checkpoint | None:
        """Return where a stage's training is written while it goes on; None where several processes share it."""
        if world.size() > 1:
            return None
        before = [one.seal.commit for one in self.folder.stages()]
        data, arguments = [task.digest() for task in stage.tasks], stage.arguments(self.spec)
        key = hashlib.sha256(repr([self.folder.id, stage.number, data, arguments, before]).encode()).hexdigest()
        return Checkpoint(self.folder.path / FOLDER, key, self.spec.save_steps, before)

    def extract_update(self, stage: Stage) -> Updates:
        """Copy what was trained to the CPU.

        Raises:
            TrainingError: it is not finite.
        """
        update: Updates = self.backend.extract()
        check_finite(update, stage.name)
        return update

    def remember(self, stage: Stage, model: nn.Module, update: Updates) -> memory.Memory:
        """Let the parts remember what they want of a task that ended at ``update``, for later tasks."""
        frozen = self.base.family.frozen
        with frozen.looking_back() if frozen is not None else nullcontext():
            return memory.remember(
                self.method.remembering,
                self.memory,
                update,
                continued=self.method.consolidator.rule == "continue",
                look=lambda part: observe(part, stage, model, self.base.family, self.backend, self.spec.seed),
            )

    @spent("saving")
    def commit(self, stage: Stage, seconds: Seconds | float, learned: LearnedTask | None = None) -> None:
        """Write a trained stage to the folder, in one step; ``learned`` is None where nothing was trained."""

        def write() -> None:
            facts = stage_facts(self, stage, seconds, learned)
            with self.folder.commit(stage.number, stage.name, facts) as path:
                if learned is not None:
                    for file in learned.folder.iterdir():
                        copy_checked(file, path / file.name)
                    write_rows(path / "training.jsonl", learned.training.log)
                    write_rows(path / "modules.jsonl", map(asdict, learned.training.chain.records))

        world.on_main(write)
        world.wait()  # the others read it
