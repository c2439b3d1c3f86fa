"""Trains with transformers' Trainer and a loss of our own, since λ means something only against a known loss.

Trainer believes that any forward that takes ``**kwargs`` divides its loss by ``num_items_in_batch``. T5 and the
classification heads take it and ignore it, so their gradient grows with accumulation and with processes
(huggingface/transformers#47688). One reduction for every family ends this: the summed cross entropy of the positions
that carry loss, divided by their number in the whole global batch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback

from everlora.core.errors import TrainingError
from everlora.data.task import Task
from everlora.models.families import Causal, Family, Features
from everlora.models.families.base import Batch
from everlora.models.families.packed import can_pack_in_training
from everlora.runtime import world
from everlora.runtime.stopping import END
from everlora.settings.training import TrainingArgumentsInput
from everlora.training.chain import Chain
from everlora.training.checkpoint import MINUTES, Checkpoint
from everlora.training.head_rate import is_head, set_head_rate, taken_out
from everlora.training.losses import ExtraLosses, rows_of, token_mean
from everlora.training.order import Order
from everlora.training.shared import SharedTraining
from everlora.training.stock_arguments import arguments, refusals

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


def fit(
    model: nn.Module,
    family: Family,
    chain: Chain,
    rows: Rows,
    train: TrainingArgumentsInput,
    *,
    seed: int,
    cpu: bool,
    callbacks: Sequence[TrainerCallback],
    extra_losses: ExtraLosses | None = None,
    order: Order | None = None,
    find_unused: bool | None = None,
    checkpoint: Checkpoint | None = None,
    shared: SharedTraining | None = None,
) -> list[dict[str, float]]:
    """Train all that requires a gradient, and return the Trainer's log; without ``order`` rows are shuffled.

    ``find_unused`` is ``ddp_find_unused_parameters`` where no user sets it; None leaves it to transformers. Training
    goes on from a ``checkpoint`` that counts, and writes it. What is ``shared`` is learned once.
    """
    # Under the user's own value, if there is one.
    train, head_rate = taken_out({"ddp_find_unused_parameters": find_unused, **train})
    # Trainer wants a folder of its own, and must leave nothing in that of the run.
    with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
        more = {"model": model, "args": arguments(train, folder=scratch, seed=seed, cpu=cpu), "train_dataset": rows}
        trainer = ClTrainer(family, chain, extra_losses, order, checkpoint, head_rate, **more)
        if shared is not None and (known := shared.recall(trainer)) is not None:
            return known
        for callback in (*callbacks, *([] if checkpoint is None else [checkpoint])):
            trainer.add_callback(callback)
        with END.heeded() if checkpoint is not None else nullcontext():
            trainer.train(resume_from_checkpoint=checkpoint.found() if checkpoint is not None else None)
        if checkpoint is not None and END.requested:  # in the last step, behind which no checkpoint is written
            raise KeyboardInterrupt
        if not trainer.state.global_step:
            raise TrainingError("not one step was taken, so nothing was learned; look at the batch size and the rows")
        if shared is not None:
            shared.keep(trainer)
        return list(trainer.state.log_history)
