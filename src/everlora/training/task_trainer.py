"""One task is learned: the method's parts are given their constants, and the Trainer its rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from everlora.adapters import AdapterBackend
from everlora.core.errors import ConfigError
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import GenerativeReplay
from everlora.core.updates import Updates
from everlora.data.task import Task
from everlora.models.loading import Loaded
from everlora.runtime import world
from everlora.runtime.progress import Progress, StepCallback, warn
from everlora.runtime.seeds import seed_for
from everlora.settings.spec import LearnerSpec
from everlora.training import memory, pseudo, rehearsal
from everlora.training.blocks import BlockRunner
from everlora.training.chain import Chain
from everlora.training.order import Blocks, EqualShares, Order
from everlora.training.probe import Probe
from everlora.training.stages import Stage
from everlora.training.teacher import Teacher
from everlora.training.trainer import ExtraLosses, Rows, fit


@dataclass(frozen=True)
class TaskTrainer:
    """What is known when a stage is about to be trained.

    Attributes:
        base, method, spec, mount: as in `everlora.learner.sequential.SequentialLearner`; the mount is open.
        stage: what is learned.
        past: what parts see of the earlier tasks.
        start: where the live tensors start, if they go on from the stage before.
        memory: what the parts remember.
    """

    base: Loaded
    method: Method
    spec: LearnerSpec
    backend: AdapterBackend
    stage: Stage
    past: UpdateHistory
    start: Updates | None
    memory: memory.Memory

    @property
    def arguments(self) -> dict[str, Any]:
        """The training arguments of this stage."""
        alone = self.spec.train_of if len(self.stage.tasks) == 1 else None
        return {**self.spec.train, **(alone or {}).get(self.stage.tasks[0].name, {})}

    def chain(self, model: nn.Module) -> Chain:
        """The gradient chain of this stage."""
        chain = Chain.build(
            [p for p in model.parameters() if p.requires_grad],
            self.backend.trainable(),
            self.past,
            self.method,
            task=self.stage.name,
            max_norm=float(self.arguments["max_grad_norm"]),
            every=int(self.arguments["logging_steps"]),
            start=self.start,
            memory=self.memory,
            seed=self.spec.seed,
        )
        chain.probe = Probe.wanted(chain.groups, model, self.backend, seed_for(self.spec.seed, self.stage.seeded))
        return chain

    def train(
        self,
        model: nn.Module,
        kept: Sequence[Task],
        earlier: Sequence[Task] = (),
        *,
        first: bool,
        progress: Progress,
    ) -> tuple[Chain, dict[str, Any]]:
        """Train, with rows of ``kept`` among those of the stage; ``first`` if nothing was learned before.

        ``earlier`` tasks are for a part that lets the model write rows of them, which sees nothing of their rows.

        Returns:
            The chain, with what it has recorded; the Trainer's log, and how many texts were cut.
        """
        chain, family, part = self.chain(model), self.base.family, self.method.rehearsal
        stage = rehearsal.taught(part, self.stage, self.spec.seed)
        warn(progress, stage.name, chain.warnings)
        outputs = tuple(one for one in self.method.outputs if one.strength)
        held = rehearsal.draw_rows(part, kept, self.spec.seed, stage.number)
        rows, written = Rows(family, stage.tasks, held), dict[str, Any]()
        if isinstance(part, GenerativeReplay):
            # Before a step is taken, the model is that of the task before.
            known, written = pseudo.write(part, model, family, earlier, self.spec.seed, stage.number)
            if part.eta or known:
                rows = pseudo.WritingRows(part, family, stage.tasks, [*held, *known])
        seed = seed_for(self.spec.seed, stage.seeded, "data")
        order = self.order(rows, chain, seed)
        besides = ExtraLosses(
            outputs=outputs,
            side=self.backend.auxiliary_loss,
            teacher=Teacher(chain.params) if outputs and not first else None,
        )
        with chain.probe or nullcontext():
            log = fit(
                model,
                family,
                chain,
                rows,
                self.arguments,
                seed=seed,
                cpu=self.base.precision.device.type == "cpu",
                callback=StepCallback(progress, f"learning {stage.name}"),
                besides=besides,
                order=order,
            )
        if rows.cut:
            progress.info(f"{stage.name}: {rows.cut} of {len(rows)} training texts were cut to --max-source-length")
        return chain, {"training": log, "cut": rows.cut, **written}

    def order(self, rows: Rows, chain: Chain, seed: int) -> Order | None:
        """The order of rows that the method asks for; None if they are shuffled. Blocks are made known to the chain.

        Raises:
            ConfigError: the training arguments ask for another order.
        """
        method, train = self.method, self.arguments
        if not method.rule and method.mixing == "proportional":
            return None
        if (asked := train.get("train_sampling_strategy", "random")) != "random":
            raise ConfigError(f"{method.name!r} arranges the rows itself; leave out train_sampling_strategy={asked}")
        if method.mixing == "equal":
            return EqualShares(rows.sizes, seed)
        if not method.rule or rows.fresh == len(rows):
            return None
        batch = int(train["per_device_train_batch_size"]) * int(train["gradient_accumulation_steps"]) * world.size()
        inner, outer = method.rule.inner, method.rule.outer
        blocks = Blocks(rows.fresh, len(rows) - rows.fresh, batch=batch, inner=inner, outer=outer, seed=seed)
        sites = [site for group in chain.groups for site in group.live]
        chain.recurrence = BlockRunner(method.rule, blocks.turns, [p for site in sites for p in site.tensors.values()])
        return blocks
