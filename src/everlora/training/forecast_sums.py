"""Passes a few rows through a model, and sums what their loss says of each adapted matrix: slope and curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from everlora.models.families import Family
from everlora.models.families.heads import evaluating
from everlora.training.calibration import own_labels
from everlora.training.curvature import by_row
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.trainer import token_mean

DENSE = 2**31
"""Bytes that the sums may take."""
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class Sums:
    """Holds, of one adapted matrix (o, i), what was summed over rows, divided by their number.

    Attributes:
        gradient: G of the loss of a row, over its whole answer, (o, i).
        left, right: L (o, o) and R (i, i).
    """

    gradient: Tensor
    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Look:
    """Holds what a pass of rows through the model has shown.

    Attributes:
        sums: by adapted module.
        loss: mean of the rows, each over its whole answer, in nats.
        rows: how many they were.
    """

    sums: Mapping[str, Sums]
    loss: float
    rows: int


def fits(shapes: Iterable[tuple[int, int]]) -> bool:
    """Return whether the sums of matrices (o, i) take no more than `DENSE`.

    >>> fits([(576, 576)] * 60), fits([(14336, 4096)] * 32)
    (True, False)
    """
    return 4 * sum(out**2 + into**2 + out * into for out, into in shapes) <= DENSE


def sums_over(
    model: nn.Module,
    family: Family,
    layers: Mapping[str, nn.Module],
    rows: Rows,
    drawn: torch.Generator | None = None,
) -> Look:
    """Pass rows through the model once, and sum what a `LossModel` is made of, in fp32 on the CPU.

    Args:
        model: as it stands, with an adapter on it or without.
        family: how it reads rows.
        layers: the linear layers whose weights the adapter updates, by path.
        rows: whose loss it is.
        drawn: draws the answers that L and R are made of; None takes the rows' own, whose gradients are there anyway.
    """
    sums: dict[str, list[Tensor]] = {}
    total = 0.0
    calls: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str) -> Hook:
        def look(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            # A tensor of its own, which needs a gradient, so that no weight has to.
            out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
            if out.requires_grad:  # not where frozen layers try, without gradients, whether the model can be cut
                calls.append((name, args[0].detach(), out))
            return out

        return look

    with evaluating(model), own_labels(family), ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        for k in range(0, len(rows), AT_ONCE):
            calls.clear()
            with torch.enable_grad():
                logits, targets = family.logits(model, to_batch(model, family, rows[k : k + AT_ONCE]))
                outs = [out for _, _, out in calls]
                # Divided by 1: a row's loss is the sum over its answer.
                loss = token_mean(logits, targets, 1)
                total += float(loss.detach())
                true = torch.autograd.grad(loss, outs, retain_graph=drawn is not None, allow_unused=True)
                guessed = true
                if drawn is not None:
                    # On the CPU, whose generator draws the same answers whatever device the model is on.
                    answers = torch.multinomial(logits.detach().float().softmax(-1).cpu(), 1, generator=drawn)[:, 0]
                    loss = token_mean(logits, answers.to(targets.device), 1)
                    guessed = torch.autograd.grad(loss, outs, allow_unused=True)
            _add(sums, calls, true, guessed)
    means = {name: Sums(*(one.cpu() / len(rows) for one in found)) for name, found in sums.items()}
    return Look(means, total / len(rows), len(rows))


def _add(
    sums: dict[str, list[Tensor]],
    calls: Sequence[tuple[str, Tensor, Tensor]],
    true: Sequence[Tensor | None],
    guessed: Sequence[Tensor | None],
) -> None:
    """Add what one batch has shown to the sums: G, L and R of each layer that a gradient went through."""
    by_layer: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for (name, x, _), t, g in zip(calls, true, guessed, strict=True):
        if t is not None and g is not None:
            by_layer.setdefault(name, []).append((by_row(x), by_row(t), by_row(g)))
    for name, found in by_layer.items():
        # A layer that is called several times has one gradient per row, summed over the calls.
        x, t, g = (torch.cat(each, 1) for each in zip(*found, strict=True))
        G = t.flatten(0, 1).mT @ x.flatten(0, 1)
        # (b, t, n) to (n, n) without one matrix a row: G_i G_iᵀ = g_iᵀ (x_i x_iᵀ) g_i.
        left = g.flatten(0, 1).mT @ (x @ x.mT @ g).flatten(0, 1)
        right = x.flatten(0, 1).mT @ (g @ g.mT @ x).flatten(0, 1)
        so_far = sums.get(name)
        sums[name] = [a + b for a, b in zip(so_far, (G, left, right), strict=True)] if so_far else [G, left, right]
