"""Trains with transformers' Trainer and a loss of our own, since λ means something only against a known loss.

Trainer believes that any forward that takes ``**kwargs`` divides its loss by ``num_items_in_batch``. T5 and the
classification heads take it and ignore it, so their gradient grows with accumulation and with processes
(huggingface/transformers#47688). One reduction for every family ends this: the summed cross entropy of the positions
that carry loss, divided by their number in the whole global batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer

from everlora.core.roles import OutputPenalty
from everlora.data.task import Task
from everlora.models.families import Causal, Family, Features
from everlora.models.families.base import IGNORE, Batch
from everlora.models.families.packed import can_pack_in_training
from everlora.runtime import world
from everlora.training.chain import Chain
from everlora.training.checkpoint import MINUTES, Checkpoint
from everlora.training.head_rate import is_head, set_head_rate
from everlora.training.order import Order
from everlora.training.stock_arguments import refusals
from everlora.training.teacher import Teacher

REHEARSED: Final = "rehearsed"
"""Feature, and tensor (b,) in a batch, that marks rows of earlier tasks; only where something is rehearsed."""
WEIGHT: Final = "weight"
"""Feature, and tensor (b,) in a batch, by which a row's loss is multiplied; only where rows differ in it."""


class Rows(Dataset[Features]):
    """Holds training rows of one or several tasks, encoded when they are first used; rehearsed rows are last.

    Attributes:
        fresh: how many rows are not rehearsed; ``sizes`` has their number by task.
        cut: rows used so far whose text had to be shortened.
    """

    def __init__(self, family: Family, tasks: Sequence[Task], rehearsed: Sequence[Task] = ()) -> None:
        self.family = family
        self.rows = [(example, task) for task in (*tasks, *rehearsed) for example in task.train]
        self.sizes = [len(task.train) for task in tasks]
        self.fresh = sum(self.sizes)
        self.encoded: dict[int, Features] = {}
        self.cut = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features:
        if index not in self.encoded:
            # The family counts every text that it cuts, to be answered or learned; here a training row counts once.
            before = self.family.truncated
            row = self.family.features(*self.rows[index])
            self.encoded[index] = {**row, REHEARSED: index >= self.fresh} if self.fresh < len(self.rows) else row
            self.cut += self.family.truncated - before
        return self.encoded[index]


def token_mean(logits: Tensor, targets: Tensor, total: Tensor | int, weights: Tensor | None = None) -> Tensor:
    """Sum the cross entropy over the local positions, (n, v) and (n,), and divide by their number in the global batch.

    ``weights`` (n,) multiply it first.
    """
    # Logits in fp32: bf16 has eight bits, and a logarithm of a sum over a vocabulary loses its small terms.
    if weights is not None:
        return (cross_entropy(logits.float(), targets, reduction="none") * weights).sum() / total
    return cross_entropy(logits.float(), targets, reduction="sum") / total


@dataclass(kw_only=True)
class ExtraLosses:
    """Adds terms to the task's own loss.

    Attributes:
        outputs: penalties that compare answers with those given when the task began.
        side: a term that belongs to the trained form itself, one value per row of the latest batch (b,), or None.
        teacher: the model as it was then; None where nothing was learned before.
    """

    outputs: Sequence[OutputPenalty] = ()
    side: Callable[[], Tensor | None] | None = None
    teacher: Teacher | None = None

    def loss(
        self,
        model: nn.Module,
        family: Family,
        batch: Batch,
        logits: Tensor,
        marks: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Sum the terms over the positions that carry loss, ().

        ``logits`` (n, u) are those to compare, ``marks`` (b,) tell rehearsed rows, ``weights`` (n,) are those of the
        task's loss, if it has any.
        """
        # A sum, like the task's: whoever calls divides both by the one number of positions in the global batch.
        total, rows = logits.new_zeros(()), rows_of(batch["labels"])
        side = None if self.side is None else self.side()
        if side is not None:
            total = total + side[rows].sum()
        if self.teacher is None or not self.outputs or not logits.shape[-1]:  # no label was known before
            return total
        # The hooks of a form run here, too, so the form's own term was taken before.
        old = self.teacher.logits(model, family, batch)
        rehearsed = torch.zeros_like(rows, dtype=torch.bool) if marks is None else marks[rows]
        for part in self.outputs:
            here = rehearsed if part.on == "rehearsed" else ~rehearsed
            if here.any():
                each = part.per_position(logits[here].float(), old[here].float())
                total = total + part.strength * (each if weights is None else each * weights[here]).sum()
        return total


def rows_of(labels: Tensor) -> Tensor:
    """Find the row of each position that carries loss, (n,): labels are (b, s), or (b,) where a head answers."""
    if labels.ndim == 1:
        return torch.arange(len(labels), device=labels.device)
    return (labels != IGNORE).nonzero()[:, 0]


class ClTrainer(Trainer):
    """Is the Trainer of transformers with our loss and our order of rows; everything else is stock."""

    # Our denominator counts the micro-batches already; Trainer would divide by their number once more.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        family: Family,
        chain: Chain,
        extra_losses: ExtraLosses | None = None,
        order: Order | None = None,
        checkpoint: Checkpoint | None = None,
        head_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        with refusals():
            # A compute_loss_func makes the Trainer count items over accumulation steps and processes.
            super().__init__(data_collator=self._collate, compute_loss_func=token_mean, callbacks=[chain], **kwargs)
        world.check_running(self.accelerator.distributed_type)
        self.remove_callback(PrinterCallback)  # stdout belongs to results
        self.family = family
        self.chain = chain
        self.extra_losses = extra_losses or ExtraLosses()
        self.order = order
        self.checkpoint = checkpoint
        self.head_rate = head_rate
        self._packs: bool | None = None
        self.rows: Rows = self.train_dataset  # whose count of cut texts a checkpoint has

    @contextmanager
    def _packing(self, model: nn.Module) -> Iterator[None]:
        """Let rows be packed, unless a part looks at the inner layers."""
        if self._packs is None:
            decoder = isinstance(self.family, Causal)
            self._packs = self.chain.probe is None and decoder and can_pack_in_training(model)
        self.family.packs = self._packs
        try:
            yield
        finally:
            self.family.packs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return our order of rows, where there is one; this is Trainer's documented place for it."""
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def _collate(self, rows: Sequence[Features]) -> Batch:
        batch = self.family.collate(rows)
        if REHEARSED in rows[0]:
            batch[REHEARSED] = torch.tensor([row[REHEARSED] for row in rows])
        if WEIGHT in rows[0]:
            batch[WEIGHT] = torch.tensor([row[WEIGHT] for row in rows])
        return batch

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        with refusals():
            optimizer = super().create_optimizer(*args, **kwargs)
        if self.head_rate is not None:
            set_head_rate(optimizer, self.model, self.family, self.head_rate)
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        with refusals():
            return super().create_scheduler(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        self._plan_checkpoint()
        # Taken out: the model's forward knows no such arguments.
        marks, weights = inputs.pop(REHEARSED, None), inputs.pop(WEIGHT, None)
        each = None if weights is None else weights[rows_of(inputs["labels"])]
        if self.chain.probe is not None:
            # Inner layers do not see what is padding; the probe must not count it.
            self.chain.probe.tokens.set_batch(self.family, inputs)
        with self._packing(model):
            logits, targets, known = self.family.logits_with_known(model, inputs)
        total = num_items_in_batch if num_items_in_batch is not None else targets.numel()
        extra = self.extra_losses.loss(model, self.family, inputs, known, marks, each) / total
        # DDP averages gradients over processes; the denominator is global, so their number is multiplied back.
        loss = (token_mean(logits, targets, total, each) + extra) * self.accelerator.num_processes
        return (loss, {"logits": logits}) if return_outputs else loss

    def _plan_checkpoint(self) -> None:
        """Ask for a checkpoint of ours (a Trainer's are pickles) at the end of this step; none is due at the last."""
        one = self.checkpoint
        if one is None:
            return
        step = self.state.global_step + 1
        if step >= self.state.max_steps:
            return
        if step % one.steps == 0 if one.steps else time.monotonic() - one.last >= 60.0 * MINUTES:
            self.control.should_save = True

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.checkpoint is not None:
            self.checkpoint.write(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.checkpoint is not None:
            self.checkpoint.read(self)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.checkpoint is not None and checkpoint is not None:
            self.checkpoint.read_rest(self)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Do nothing: there is no scaler, since nothing is trained in fp16."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.checkpoint is not None and checkpoint is not None:
            self.checkpoint.read_random()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name all that Trainer decays but the head, whose rows for labels of other tasks must stay as they are."""
        names: list[str] = super().get_decay_parameter_names(model)
        return [one for one in names if not is_head(one, self.family)]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log({**logs, **self.chain.latest} if "loss" in logs else logs, *args, **kwargs)
