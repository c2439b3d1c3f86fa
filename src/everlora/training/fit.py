"""Trains what requires a gradient on rows, in a Trainer of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext

from torch import nn
from transformers import TrainerCallback

from everlora.core.errors import TrainingError
from everlora.models.families import Family
from everlora.runtime.stopping import END
from everlora.settings.training import TrainingArgumentsInput
from everlora.training.chain import Chain
from everlora.training.checkpoint import Checkpoint
from everlora.training.head_rate import taken_out
from everlora.training.order import Order
from everlora.training.shared import SharedTraining
from everlora.training.stock_arguments import arguments
from everlora.training.trainer import ClTrainer, ExtraLosses, Rows


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
