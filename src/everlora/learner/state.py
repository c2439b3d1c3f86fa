"""Holds a model between tasks: its history, the adapter that goes on, and the model that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn

from everlora.adapters import make_backend
from everlora.adapters.base import LoraInput
from everlora.analysis.holdings import measure_holdings
from everlora.archive.committed import Committed
from everlora.archive.folder import RunFolder
from everlora.archive.records import Holdings
from everlora.archive.results import ExportLoss, LearnerFacts, ScoredProtocol, Storage
from everlora.core.errors import ConfigError, FolderError
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import Merge
from everlora.core.updates import LowRankUpdates, Updates
from everlora.data.task import Example, Task
from everlora.learner.teaching import Teaching
from everlora.models.families import Classifier, TextClassifier
from everlora.models.families.feature_cache import FeatureCache
from everlora.models.families.frozen_encoder import find_frozen
from everlora.models.families.heads import evaluating
from everlora.models.loading import Loaded
from everlora.runtime.memory import give_back
from everlora.runtime.seeds import seed_for
from everlora.settings.spec import LearnerSpec
from everlora.training import memory, rehearsal
from everlora.training.alarms import after_training, change
from everlora.training.calibration import FILE as PROBES
from everlora.training.calibration import Calibration
from everlora.training.evidence_rows import to_batch
from everlora.training.head_rate import check_head_rate
from everlora.training.stages import Stage


class LearnerState:
    """Holds a model, and all that its earlier tasks have left to it.

    Args:
        base: the loaded model.
        method: what to do about forgetting.
        spec: settings; its ``train`` entry is complete by now.
        folder: where everything is committed.

    Attributes:
        past: updates of all learned tasks; empty where one adapter is trained on and on.
        newest: the adapter of the latest task; None before the first.
        memory: what the method's parts carry from task to task, apart from the updates.
        stored_rows: rows of learned tasks that are stored, to be trained again.
        changes: how much each task has changed, by which a task that collapsed is recognised.
        calibration: what rows that are looked at have shown of a budget's prediction.
        standing: hashes of the COMMITs of the tasks that all this is made of, in order.
        teaching: what is said of the task that is about to be learned.
        features: where hidden states of frozen layers are held on disk; None where nowhere.
    """

    def __init__(self, base: Loaded, method: Method, spec: LearnerSpec, folder: RunFolder) -> None:
        self.base, self.method, self.spec, self.folder = base, method, spec, folder
        lora = cast(LoraInput, spec.lora.model_dump(exclude_none=True))
        self.backend = make_backend(base, lora, spec.past, method.adapter)
        set_head(base, spec)
        self.past = UpdateHistory()
        self.newest: Updates | None = None
        self.memory: memory.Memory = {}
        self.stored_rows: list[Task] = []
        self.changes: list[float] = []
        self.standing: tuple[str, ...] = ()
        self.export_loss = ExportLoss()
        self.features: FeatureCache | None = None
        self.calibration = Calibration.of(method)
        self.teaching = Teaching()

    def reset(self) -> None:
        """Forget everything: the history comes from the folder, whatever this object has learned so far."""
        self.backend.detach()
        self.past, self.newest, self.changes, self.memory, self.stored_rows = UpdateHistory(), None, [], {}, []
        self.calibration, self.standing = Calibration.of(self.method), ()
        self.base.family.reset()

    def restore_task(self, committed: Committed, stage: Stage, *, last: bool = True) -> nn.Module:
        """Bring back a committed stage without training it again; return the model, with the adapter of the last one.

        Adapters of those before are put on only for a head, which grows with each of them, and their values only where
        a stage is still to be scored.
        """
        if not stage.trains:
            self.prepare_head(stage)
            return self.base.model
        if committed.facts.within is not None:
            return self.restore_within(committed, stage)
        update, head = self.backend.load(committed.path)
        self.adopt_rows(committed, stage)
        model: nn.Module = self.base.model
        if last or isinstance(self.base.family, Classifier) or not committed.evaluated:
            model = self.attach_adapter(stage)  # as when it was trained: a head draws its rows at the same times
            self.try_frozen(stage, model)
            self.backend.restore_head(head)
        if not committed.evaluated:
            self.backend.set_values(update)
        rows = rehearsal.read(committed.path, self.method.rehearsal, stage.tasks)
        # What parts remember stands in the newest task for all.
        self.append_update(update, memory.read(committed.path) if last else {}, rows)
        self.restore_probes(committed)
        return model

    def restore_within(self, committed: Committed, stage: Stage) -> nn.Module:
        """Bring back a stage whose update is part of a later one's since both were compacted."""
        self.adopt_rows(committed, stage)
        self.prepare_head(stage)
        self.stored_rows = [
            *self.stored_rows,
            *rehearsal.read(committed.path, self.method.rehearsal, stage.tasks),
        ]
        self.restore_probes(committed)
        return self.base.model

    def adopt_rows(self, committed: Committed, stage: Stage) -> None:
        """Give the labels of a stage the rows of the head that they had when it was learned."""
        if isinstance(self.base.family, Classifier) and self.method.consolidator.rule != "keep":
            for task in stage.tasks:
                self.base.family.adopt(task, committed.facts.label_rows.get(task.name, ()))

    def restore_probes(self, committed: Committed) -> None:
        """Bring back the rows of a stage that are looked at, and what they have shown."""
        probes, facts = rehearsal.read_rows(committed.path / PROBES), committed.facts
        self.calibration.append(probes, facts.probed, facts.predicted_rise)

    def prepare_head(self, stage: Stage) -> None:
        """Give a classification head rows for the labels of the stage; other families need nothing."""
        if self.base.family.fixed and self.method.consolidator.rule == "sum":
            self.backend.set_past(UpdateHistory())  # names are read by the model as it was loaded
        # Of the stage's own seed: new rows are the same whether the tasks before were learned now or restored.
        draws = torch.Generator().manual_seed(seed_for(self.spec.seed, stage.seeded, "head"))
        rehearsed = rehearsal.draw_rows(self.method.rehearsal, self.stored_rows, self.spec.seed, stage.number)
        self.base.family.prepare(self.base.model, [*stage.tasks, *rehearsed], draws)

    def attach_adapter(self, stage: Stage) -> nn.Module:
        """Put the stage's adapter on the model, with the past below it; return the model with the adapter."""
        self.backend.detach()
        if self.method.consolidator.rule == "keep":  # tasks know nothing of one another
            self.base.family.reset()
        self.prepare_head(stage)
        seed = seed_for(self.spec.seed, stage.seeded, "adapter")
        model = self.backend.attach(seed=seed, start=self.adapter_start(), tasks=stage.tasks)
        chosen = self.spec.lora.layers is not None
        if self.base.family.frozen is None and (chosen or self.method.adapter.low_rank):
            layers = self.backend.base_layers()
            self.base.family.frozen = find_frozen(model, layers, by_layers=chosen, disk=self.features)
        if self.base.family.frozen is not None:
            # Here in every run, since one that is resumed holds nothing yet, and both must compute the same bits.
            self.base.family.frozen.begin_task()
        if self.method.consolidator.rule == "sum" or self.backend.needs_past:
            self.backend.set_past(self.past, self.merge_when("train"))
        return model

    @torch.no_grad()
    def try_frozen(self, stage: Stage, model: nn.Module) -> None:
        """Let frozen layers find out whether the model can be cut there, as a task that is trained would have done.

        Whoever watches layers in the task that follows must not see that trial.
        """
        family, frozen = self.base.family, self.base.family.frozen
        # Of a task whose rows are gone any text will do: what comes out does not matter.
        rows = [(row, task) for task in stage.tasks for row in [*task.train, *task.test, *any_row(task)][:1]]
        if frozen is not None and frozen.fits is None and rows:
            with evaluating(model):
                family.logits(model, to_batch(model, family, rows[:1]))

    def adapter_start(self) -> Updates | None:
        """Return where the adapter of a stage starts, if it goes on from the one before; None if it is fresh."""
        return self.newest if self.method.consolidator.rule == "continue" else None

    def amiss(self, update: Updates, log: Sequence[Mapping[str, float]]) -> list[str]:
        """Return warnings of an update that was just trained, whose adapter is still on, and of its logged losses."""
        began = self.adapter_start() or self.backend.origin()
        earlier = self.changes if self.method.penalties else ()
        return after_training(update, began, self.backend.base_layers(), log, earlier)

    def merge_when(self, when: Literal["train", "infer"]) -> Merge | None:
        """Return the method's merge, if it wants the past merged at this time; None leaves the past a plain sum."""
        merge = self.method.merge
        return merge if merge and getattr(merge, when) == "merged" else None

    def append_update(self, update: Updates, remembered: memory.Memory, rows: Sequence[Task]) -> None:
        """Append a finished update to the history; its adapter is still on the model."""
        if self.method.adapter.low_rank or self.adapter_start() is not None:  # other fresh forms did not start at 0
            self.changes.append(change(update, self.adapter_start()))
        self.past, self.newest, self.memory = self.past_after(update), update, remembered
        self.stored_rows = [*self.stored_rows, *rows]

    def past_after(self, update: Updates) -> UpdateHistory:
        """Return the history with one more update; one adapter that is trained on and on makes none."""
        if self.method.consolidator.rule == "continue":
            return self.past
        return self.past.append(cast(LowRankUpdates, update))

    def answering_model(self, model: nn.Module) -> nn.Module:
        """Return the model that answers after a task: as it was trained, or with all tasks merged below it."""
        if self.method.merge is None or self.newest is None:
            return model
        self.backend.detach()
        # The newest update is merged with the others, so that it may not act on top of them as well.
        self.backend.set_past(self.past, self.merge_when("infer"))
        return self.base.model

    def inference_model(self) -> nn.Module:
        """Return the model as it is after the latest task, in eval mode.

        Raises:
            FolderError: the folder holds learned tasks that this learner has not been given yet.
        """
        if self.newest is None and self.method.regime != "frozen" and self.folder.stages():
            raise FolderError(f"{self.folder.path} holds learned tasks; follow them first, then ask for the model")
        if self.method.consolidator.rule == "sum":
            self.backend.set_past(self.past, self.merge_when("infer"))
            return self.base.model.eval()
        if self.backend.model is None and self.newest is not None:
            # Nothing is drawn: every value comes from what was learned.
            self.backend.attach(seed=0, start=self.newest)
            if self.backend.needs_past:
                # The newest is attached already; what stands below it are those before.
                self.backend.set_past(UpdateHistory(self.past.deltas[:-1]))
        return (self.backend.model or self.base.model).eval()

    def export(self) -> None:
        """Write the learner to the root of the folder, as one adapter."""
        newest, latest = cast(LowRankUpdates, self.newest), self.folder.stages()[-1].path
        past = self.past if self.method.consolidator.rule == "sum" else UpdateHistory((newest,))
        self.export_loss = self.backend.export(self.folder.path, latest, past, self.merge_when("infer"))
        give_back()  # once a task, behind all that is made of a long past

    # --- what is written of it ---------------------------------------------------------------------------------------

    def storage(self) -> Storage:
        """Measure what is kept for the next task, which the method's declaration must equal."""
        return self._storage(self.past, self.newest or {}, self.memory, [*self.stored_rows, *self.calibration.rows])

    def _storage(
        self, past: UpdateHistory, newest: Updates, remembered: memory.Memory, rows: Sequence[Task]
    ) -> Storage:
        adapter = sum(update.numel for update in newest.values())
        elements = adapter if self.method.consolidator.rule == "continue" else past.numel
        return Storage(
            stored_elements=elements,
            adapter_elements=adapter,
            memory_bytes=4 * elements + memory.size(remembered) + rehearsal.size(rows),  # updates are kept in fp32
            stored_rows=rehearsal.count(rows),
            stored_row_bytes=rehearsal.size(rows),
        )

    def holdings_after(self, update: Updates, remembered: memory.Memory, rows: Sequence[Task]) -> Holdings:
        """Measure what the learner will hold when a stage has joined its history."""
        past = self.past_after(update)
        kept = self._storage(past, update, remembered, [*self.stored_rows, *self.calibration.rows, *rows])
        if self.method.consolidator.rule == "continue":  # then the one adapter is the past of the next task
            past = UpdateHistory((cast(LowRankUpdates, update),))
        return measure_holdings(self.method, past, remembered, kept.memory_bytes)

    def facts(self) -> LearnerFacts:
        """Describe the learner for matrix.json."""
        protocol, evaluation = self.folder.record.protocol, self.spec.evaluation.model_dump()
        return LearnerFacts(
            **self.storage().model_dump(),
            **self.export_loss.model_dump(),
            method=self.method.name,
            model=self.spec.model,
            family=self.base.family.name,
            task_id_at_inference=self.method.task_id_at_inference,
            replay=self.method.sees_again,
            protocol=ScoredProtocol(**protocol.model_dump(), **evaluation) if protocol else None,
            labels=self.folder.stages()[-1].facts.labels,
        )


def set_head(base: Loaded, spec: LearnerSpec) -> None:
    """Tell a classification head what it is made of, and whether a row's task is known when it is answered.

    Raises:
        ConfigError: the model has no head that reads names, or none that learns at a rate of its own.
    """
    base.family.frozen, base.family.fixed = None, spec.head == "names"  # of another learner on the same model
    if isinstance(base.family, Classifier):
        base.family.by_task = spec.evaluation.scoring == "labels"
    if base.family.fixed and not isinstance(base.family, TextClassifier):
        raise ConfigError(
            f"--head names is for encoders of texts, and {spec.model!r} is of the family {base.family.name}"
        )
    check_head_rate(spec, type(base.family))


def any_row(task: Task) -> list[Example]:
    """Return a row that a task of its form could have; none of pictures."""
    text: Any = [{"role": "user", "content": "a"}] if task.form == "chat" else "a"
    return [] if task.form == "image" else [Example(text, next(iter(task.labels), "a"))]
