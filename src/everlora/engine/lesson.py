"""One task is learned: the method's parts are given their constants, and the Trainer its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from everlora.core.generating import Generating
from everlora.core.method import Method
from everlora.core.past import Past
from everlora.core.sites import Learned
from everlora.core.spec import LearnerSpec
from everlora.core.task import Task
from everlora.engine import memory, pseudo
from everlora.engine.chain import Chain
from everlora.engine.models import Loaded
from everlora.engine.mounts import Mount
from everlora.engine.progress import Progress, StepCallback, tell
from everlora.engine.seeds import seed_for
from everlora.engine.stages import Stage
from everlora.engine.teacher import Teacher
from everlora.engine.trainer import Besides, Rows, fit


@dataclass(frozen=True)
class Lesson:
    """What is known when a stage is about to be trained.

    Attributes:
        base, method, spec, mount: as in `everlora.engine.learner.Life`; the mount is open.
        stage: what is learned.
        past: what parts see of the earlier tasks.
        start: where the live tensors start, if they go on from the stage before.
        memory: what the parts remember.
    """

    base: Loaded
    method: Method
    spec: LearnerSpec
    mount: Mount
    stage: Stage
    past: Past
    start: Learned | None
    memory: memory.Memory

    def chain(self, model: nn.Module) -> Chain:
        """The gradient chain of this stage."""
        return Chain.build(
            [p for p in model.parameters() if p.requires_grad],
            self.mount.live(),
            self.past,
            self.method,
            task=self.stage.name,
            max_norm=float(self.spec.train["max_grad_norm"]),
            every=int(self.spec.train["logging_steps"]),
            start=self.start,
            memory=self.memory,
        )

    def teach(
        self,
        model: nn.Module,
        rehearsed: Sequence[Task],
        earlier: Sequence[Task] = (),
        *,
        first: bool,
        progress: Progress,
    ) -> tuple[Chain, dict[str, Any]]:
        """Train, with the rows of ``rehearsed`` among those of the stage; ``first`` if nothing was learned before.

        ``earlier`` tasks are for a part that lets the model write rows of them, which sees nothing of their rows.

        Returns:
            The chain, with what it has recorded; the Trainer's log, and how many texts were cut.
        """
        chain, family, stage = self.chain(model), self.base.family, self.stage
        tell(progress, stage.name, chain.warnings)
        rows, part = Rows(family, stage.tasks, rehearsed), self.method.rehearsal
        written: dict[str, Any] = {}
        if isinstance(part, Generating):
            # Before a step is taken, the model is that of the task before.
            known, written = pseudo.write(part, model, family, earlier, self.spec.seed, stage.number)
            if part.eta or known:
                rows = pseudo.WritingRows(part, family, stage.tasks, [*rehearsed, *known])
        besides = Besides(
            outputs=self.method.outputs,
            side=self.mount.side_loss,
            teacher=Teacher(chain.params) if self.method.outputs and not first else None,
        )
        log = fit(
            model,
            family,
            chain,
            rows,
            self.spec.train,
            seed=seed_for(self.spec.seed, stage.number, "data"),
            cpu=self.base.precision.device.type == "cpu",
            callback=StepCallback(progress, f"learning {stage.name}"),
            besides=besides,
        )
        if rows.cut:
            progress.say(f"{stage.name}: {rows.cut} of {len(rows)} training texts were cut to --max-source-length")
        return chain, {"training": log, "cut": rows.cut, **written}
