"""Trains one task: the method's parts are given what they need of the past, and the Trainer its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from everlora.adapters import AdapterBackend
from everlora.archive.records import WrittenRows
from everlora.core.errors import ConfigError
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import GenerativeReplay, Part
from everlora.core.updates import Updates
from everlora.data.task import Task
from everlora.models.loading import Loaded
from everlora.runtime import world
from everlora.runtime.progress import Progress, StepCallback, warn
from everlora.runtime.seeds import seed_for
from everlora.settings.spec import LearnerSpec
from everlora.settings.training import TrainingArgumentsInput, epochs_by_size, numeric_argument
from everlora.training import memory, pseudo, rehearsal
from everlora.training.blocks import BlockRunner
from everlora.training.chain import Chain
from everlora.training.checkpoint import Checkpoint
from everlora.training.evidence import few_rows
from everlora.training.fit import fit
from everlora.training.order import Blocks, EqualShares, Order
from everlora.training.probe import Probe
from everlora.training.shared import SharedTraining
from everlora.training.stages import Stage
from everlora.training.teacher import Teacher
from everlora.training.trainer import ExtraLosses, Rows


@dataclass(frozen=True)
class TrainingResult:
    """Holds what came of training a task.

    Attributes:
        chain: the gradient chain, with the strengths, warnings and figures per module that it has recorded.
        log: the Trainer's.
        cut: training texts that were cut to the longest that is read.
        written_rows: by earlier task, how many rows the model wrote of it; None where it writes none.
        epochs: that the number of rows made; None where the settings have epochs or steps.
        predicted_rise: of the losses of all earlier tasks together, in nats per row, see `as_taken`; None before, and
            where no part predicts it.
        elsewhere: seconds that another run has trained the same, whose end was read; 0 where it was trained here.
    """

    chain: Chain
    log: list[dict[str, float]]
    cut: int
    written_rows: dict[str, WrittenRows] | None = None
    epochs: int | None = None
    predicted_rise: float | None = None
    elsewhere: float = 0.0

    def as_taken(self) -> TrainingResult:
        """Return the same with the predicted rise of what is on the model now, of which a budget may have cut some."""
        return replace(self, predicted_rise=self.chain.predicted_rise())


@dataclass(frozen=True)
class TaskTrainer:
    """Trains one stage, whose adapter is on the model.

    Attributes:
        base, method, spec, backend: as in `everlora.learner.sequential.SequentialLearner`.
        stage: what is learned.
        past: the updates of earlier tasks that parts see.
        start: where the adapter starts, if it goes on from the stage before.
        memory: what the parts remember of earlier tasks.
        calibration: by which predictions of what earlier tasks lose are multiplied.
        checkpoint: where training goes on from, if it was broken off, and writes how far it is.
        shared: the folder in which runs share first tasks; None where they do not.
    """

    base: Loaded
    method: Method
    spec: LearnerSpec
    backend: AdapterBackend
    stage: Stage
    past: UpdateHistory
    start: Updates | None
    memory: memory.Memory
    calibration: float = 1.0
    checkpoint: Checkpoint | None = None
    shared: Path | None = None

    @property
    def arguments(self) -> TrainingArgumentsInput:
        """Return the training arguments of this stage: those of the run, those of its task over them, and epochs."""
        given, epochs = self.stage.arguments(self.spec), self.epochs
        return given if epochs is None else {**given, "num_train_epochs": epochs}

    @property
    def batch(self) -> int:
        """Return the rows of a whole step."""
        given = self.stage.arguments(self.spec)
        split = ("per_device_train_batch_size", "gradient_accumulation_steps")
        return int(math.prod(numeric_argument(given, name) for name in split)) * world.size()

    @property
    def epochs(self) -> int | None:
        """Return the epochs that the number of rows makes; None where the settings have epochs or steps."""
        given = self.stage.arguments(self.spec)
        if "num_train_epochs" in given or numeric_argument(given, "max_steps", -1) > 0:
            return None
        # By the task's own rows: how long it is learned does not depend on how many others are rehearsed.
        return epochs_by_size(sum(len(task.train) for task in self.stage.tasks), self.batch)

    def chain(self, model: nn.Module) -> Chain:
        """Build the gradient chain of this stage."""
        chain = Chain.build(
            # A head's among them: the gradient is clipped as a whole.
            [p for p in model.parameters() if p.requires_grad],
            self.backend.trainable(),
            self.past,
            self.method,
            task=self.stage.name,
            max_norm=numeric_argument(self.arguments, "max_grad_norm"),
            every=int(numeric_argument(self.arguments, "logging_steps")),
            start=self.start,
            memory=self.memory,
            seed=self.spec.seed,
            calibration=self.calibration,
        )
        chain.probe = Probe.wanted(chain.groups, model, self.backend, seed_for(self.spec.seed, self.stage.seeded))
        return chain

    def train(
        self,
        model: nn.Module,
        stored_rows: Sequence[Task],
        earlier: Sequence[Task] = (),
        *,
        first: bool,
        progress: Progress,
    ) -> TrainingResult:
        """Train the adapter on the rows of the stage, and on rows of earlier tasks where the method wants them.

        Args:
            model: with the adapter on it.
            stored_rows: rows of earlier tasks that were stored.
            earlier: the earlier tasks, for a part that lets the model write rows of them and sees none of theirs.
            first: whether nothing was learned before.
            progress: is shown every step.
        """
        chain, family = self.chain(model), self.base.family
        chain.warnings += few_rows(self.measuring(first), self.stage)
        warn(progress, self.stage.name, chain.warnings)
        rows, written = self.rows(model, stored_rows, earlier)
        seed = seed_for(self.spec.seed, self.stage.seeded, "data")
        order = self.order(rows, chain, seed)
        if (epochs := self.epochs) is not None:
            steps = math.ceil((len(rows) if order is None else len(order)) / self.batch)
            times = f"{epochs} epoch{'s' if epochs > 1 else ''} of {steps} step{'s' if steps > 1 else ''}"
            progress.info(f"{self.stage.name}: {len(rows)} rows, {times}")
        extra_losses = self.extra_losses(chain, first=first)
        if self.checkpoint is not None and (amiss := self.checkpoint.clear_damaged(self.stage.name)):
            progress.warn(amiss)
        # Whoever listens to steps wants to hear them.
        place = self.shared if first and not progress.callbacks else None
        shared = SharedTraining.of(place, self, model, chain, rows, extra_losses)
        with chain.probe or nullcontext():
            log = fit(
                model,
                family,
                chain,
                rows,
                self.arguments,
                # Several processes would take what only this term uses for unused: it is in no output of the model.
                find_unused=False if self.method.adapter.own_loss else None,
                seed=seed,
                cpu=self.base.precision.device.type == "cpu",
                callbacks=(StepCallback(progress, f"learning {self.stage.name}"), *progress.callbacks),
                extra_losses=extra_losses,
                order=order,
                checkpoint=self.checkpoint,
                shared=shared,
            )
        elsewhere = shared.seconds if shared and shared.recalled else 0.0
        if elsewhere:
            progress.info(f"{self.stage.name}: learned already, by a run that begins as this one does")
        if rows.cut:
            cut = f"{rows.cut} of {len(rows)} training texts were cut to --max-source-length"
            progress.info(f"{self.stage.name}: {cut}")
        return TrainingResult(chain, log, rows.cut, written, epochs, elsewhere=elsewhere)

    def measuring(self, first: bool) -> list[Part]:
        """Return the parts that may measure rows of this stage; ``first`` as in `train`."""
        start = self.method.initialiser
        starts = start is not None and (start.needs.first_task or not first)
        return [*self.method.remembering, *([start] if start and starts else [])]

    def extra_losses(self, chain: Chain, *, first: bool) -> ExtraLosses:
        """Gather the terms that are added to the task's own loss."""
        outputs = tuple(part for part in self.method.outputs if part.strength)
        return ExtraLosses(
            outputs=outputs,
            side=self.backend.auxiliary_loss if self.method.adapter.own_loss else None,
            # Copied before the first step, while the values are still those of the task before.
            teacher=Teacher(chain.params) if outputs and not first else None,
        )

    def rows(
        self, model: nn.Module, stored_rows: Sequence[Task], earlier: Sequence[Task]
    ) -> tuple[Rows, dict[str, WrittenRows] | None]:
        """Gather the rows to train on, those of earlier tasks last; and what the model wrote of earlier tasks."""
        part, family, seed = self.method.rehearsal, self.base.family, self.spec.seed
        stage = rehearsal.stage_to_train(part, self.stage, seed)
        rehearsed = rehearsal.draw_rows(part, stored_rows, seed, stage.number)
        if not isinstance(part, GenerativeReplay):
            return Rows(family, stage.tasks, rehearsed), None
        # Before a step is taken, the model is that of the task before.
        samples, written = pseudo.write(part, model, family, earlier, seed, stage.number)
        if part.eta or samples:
            return pseudo.WritingRows(part, family, stage.tasks, [*rehearsed, *samples]), written
        return Rows(family, stage.tasks, rehearsed), written

    def order(self, rows: Rows, chain: Chain, seed: int) -> Order | None:
        """Make the order of rows that the method needs, and give the chain its blocks; None if rows are shuffled.

        Raises:
            ConfigError: the training arguments ask for another order.
        """
        method, train = self.method, self.arguments
        if not method.rule and method.mixing == "proportional":
            return None
        if (strategy := train.get("train_sampling_strategy", "random")) != "random":
            raise ConfigError(
                f"{method.name!r} arranges the rows itself; leave out train_sampling_strategy={strategy}"
            )
        if method.mixing == "equal":
            return EqualShares(rows.sizes, seed)
        # Without rehearsed rows a block would have one side only; a first task is learned as usual.
        if not method.rule or rows.fresh == len(rows):
            return None
        inner, outer = method.rule.inner, method.rule.outer
        blocks = Blocks(rows.fresh, len(rows) - rows.fresh, batch=self.batch, inner=inner, outer=outer, seed=seed)
        sites = [site for group in chain.groups for site in group.live]
        chain.recurrence = BlockRunner(method.rule, blocks.turns, [p for site in sites for p in site.tensors.values()])
        return blocks
