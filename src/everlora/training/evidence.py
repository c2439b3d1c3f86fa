"""Measures what parts need to know of a task: gradients, Fisher information, second moments, on a few rows.

Each is measured with dropout off and leaves the model as it was, in mode and in gradients.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from everlora.adapters import AdapterBackend
from everlora.core.roles import (
    NO_EVIDENCE,
    Curvature,
    CurvatureRoots,
    Evidence,
    EvidenceKind,
    NeedsEvidence,
    Part,
    State,
)
from everlora.core.updates import Updates, precise
from everlora.models.families import Family
from everlora.models.families.heads import evaluating
from everlora.models.layers import is_linear, shape_of
from everlora.models.tokens import Tokens
from everlora.runtime.seeds import seed_for
from everlora.training.curvature import curvature
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.stages import Stage
from everlora.training.trainer import token_mean

Take = Callable[[str, Evidence], None]
"""Takes the name of a module, and what was measured at it."""
MEASURED: Mapping[EvidenceKind, str] = {
    "gradients": "gradients",
    "fisher": "Fisher information",
    "moment": "moments of inputs",
    "curvature": "curvature",
}
"""What the kinds of evidence are called in messages."""
FEW = 0.5
"""With less than this share of the rows that a part wants, a task is warned of.

A task that has nearly as many would be measured nearly as well: the noise of a mean over n rows falls as 1/√n."""


def draw_rows(part: NeedsEvidence, stage: Stage, seed: int) -> Rows:
    """Draw the training rows of a stage that evidence is measured on: as many as ``part`` wants, or all there are."""
    rows = [(row, task) for task in stage.tasks for row in task.train]
    return random.Random(seed_for(seed, stage.seeded, part.name)).sample(rows, min(part.samples, len(rows)))


def few_rows(parts: Sequence[Part], stage: Stage) -> list[str]:
    """Return one warning where a stage has far fewer training rows than its parts want to measure.

    Args:
        parts: those that act in the stage; those that measure nothing do not count.
        stage: whose rows are counted.
    """
    rows = sum(len(task.train) for task in stage.tasks)
    wanted: dict[str, int] = {}
    for part in parts:
        if isinstance(part, NeedsEvidence):
            wanted[MEASURED[part.evidence]] = max(part.samples, wanted.get(MEASURED[part.evidence], 0))
    few = [f"{what} ({n} are wanted)" for what, n in wanted.items() if rows < FEW * n]
    if not few:
        return []
    return [
        f"too few training rows ({rows}) to measure its {' and '.join(few)} well: what the method does rests on a "
        f"rough guess; give the task more rows, or take a method that measures nothing (inclora)"
    ]


def observe(
    part: NeedsEvidence,
    stage: Stage,
    model: nn.Module,
    family: Family,
    backend: AdapterBackend,
    seed: int,
    only: Sequence[str] | None = None,
    take: Take | None = None,
) -> Mapping[str, Evidence]:
    """Measure the evidence that ``part`` wants to see, by module.

    Args:
        part: says what, and on how many rows.
        stage: whose training rows.
        model: with the past below it, and what is trained on it.
        family: how it reads rows.
        backend: knows the adapted layers and the live tensors.
        seed: of the run; which rows are drawn depends on it, on the stage and on the part alone.
        only: these modules alone.
        take: is given the evidence of each module as soon as it is there, where that can be; the mapping is then
            without it, so that the dense gradients of all modules are never in memory together.
    """
    chosen = draw_rows(part, stage, seed)
    if part.evidence == "fisher":
        return {name: Evidence(fisher=one) for name, one in fisher(model, family, backend.trainable(), chosen).items()}
    layers = backend.base_layers()
    layers = {name: layers[name] for name in (layers if only is None else only)}
    if not chosen:
        return dict.fromkeys(layers, NO_EVIDENCE)
    if part.evidence == "moment":
        return {name: Evidence(moment=C) for name, C in second_moments(model, family, layers, chosen).items()}
    if part.evidence == "curvature":
        labels = torch.Generator().manual_seed(seed_for(seed, stage.seeded, part.name, "labels"))
        factors = curvature(model, family, layers, chosen, labels, part.root_columns)
        return {name: _of_curvature(factors.get(name)) for name in layers}
    if part.evidence == "gradients":
        if take is not None and not part.per_sample:
            with evaluating(model):
                _gradients(model, family, layers, chosen, lambda n, G: take(n, Evidence(gradients=G.unsqueeze(0))))
            return {}
        found = weight_gradients(model, family, layers, chosen, per_sample=part.per_sample)
        return {name: Evidence(gradients=gradient) for name, gradient in found.items()}
    assert_never(part.evidence)


def _of_curvature(found: Curvature | CurvatureRoots | None) -> Evidence:
    return Evidence(curvature_roots=found) if isinstance(found, CurvatureRoots) else Evidence(curvature=found)


def weight_gradients(
    model: nn.Module, family: Family, layers: Mapping[str, nn.Module], rows: Rows, *, per_sample: bool
) -> dict[str, Tensor]:
    """Return ∂L/∂W of each linear layer, (n, o, i), in fp32: n = 1 for the mean loss, or one per row.

    Taken from inputs and output gradients, ∂L/∂W = Σ_tokens g xᵀ, so that quantised weights have one, too.

    Args:
        model: with the past below it, and an adapter that adds nothing yet.
        family: how it reads rows.
        layers: the layers below the adapter, by path.
        rows: what the loss is taken on.
        per_sample: one gradient per row.
    """
    # A pass for each row: from the sum that a batch leaves, no single row's gradient can be told.
    batches = [[row] for row in rows] if per_sample else [list(rows)]
    each: list[dict[str, Tensor]] = []
    with evaluating(model):
        for batch in batches:
            each.append({})
            _gradients(model, family, layers, batch, each[-1].__setitem__)
    return {name: torch.stack([found[name] for found in each]) for name in layers}


def _gradients(
    model: nn.Module,
    family: Family,
    layers: Mapping[str, nn.Module],
    rows: Rows,
    take: Callable[[str, Tensor], None],
) -> None:
    """Give ``take`` the name and ∂L/∂W of the mean loss on ``rows``, (o, i), of each layer once that is complete."""
    sums: dict[str, Tensor] = {}
    calls = dict.fromkeys(layers, 0)

    def watch(name: str) -> Any:
        def look(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            # A tensor of its own, which needs a gradient: an adapter adds to it in place, and a view would lose the
            # hook.
            out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
            x = args[0].detach()
            calls[name] += 1

            def add(gradient: Tensor) -> None:
                total = gradient.flatten(0, -2).float().mT @ x.flatten(0, -2).float()
                sums[name] = sums[name] + total if name in sums else total
                calls[name] -= 1
                if not calls[name]:
                    take(name, sums.pop(name).cpu())

            out.register_hook(add)  # type: ignore[no-untyped-call]
            return out

        return look

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        try:
            with torch.enable_grad():
                logits, targets = family.logits(model, to_batch(model, family, rows))
                token_mean(logits, targets, targets.numel()).backward()  # type: ignore[no-untyped-call]
        finally:
            model.zero_grad(set_to_none=True)
    for name in list(sums):  # some calls of it do not reach the loss
        take(name, sums.pop(name).cpu())


@torch.no_grad()
def second_moments(model: nn.Module, family: Family, layers: Mapping[str, nn.Module], rows: Rows) -> dict[str, Tensor]:
    """Return (1/n) Σ x xᵀ over the n tokens of ``rows`` that each layer reads, (i, i), on the CPU, without padding.

    A layer that read nothing has zeros.
    """
    sums: dict[str, Tensor] = {}
    counts, tokens = dict.fromkeys(layers, 0), Tokens(model)
    last: list[Any] = [None, None, None, 0]

    def watch(name: str) -> Any:
        def look(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            mask = tokens.of(layer, args[0])
            # Query, key and value read one tensor, whose square is the same for all of them.
            if last[0] is not args[0] or not _same_mask(last[1], mask):
                x = args[0].flatten(0, -2) if mask is None else args[0][mask]
                # In fp64: singular values are taken of these squares, whose range is the square of the features' own,
                # and fp32 would bury the small directions in rounding.
                x = precise(x)
                last[:] = args[0], mask, x.mT @ x, len(x)
            sums[name] = sums[name] + last[2] if name in sums else last[2]
            counts[name] += last[3]

        return look

    with evaluating(model), tokens, ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(watch(name)).remove)
        for k in range(0, len(rows), AT_ONCE):
            batch = to_batch(model, family, rows[k : k + AT_ONCE])
            tokens.set_batch(family, batch)
            family.logits(model, batch)
    return {name: (sums[name] / counts[name]).cpu() if counts[name] else _nothing(layers[name]) for name in layers}


def _same_mask(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))


def _nothing(layer: nn.Module) -> Tensor:
    """Return the moment of a linear layer that has read nothing: zeros, (i, i)."""
    packed = int(layer.in_features) if hasattr(layer, "in_features") else 0  # type: ignore[arg-type]
    width = shape_of(layer)[1] if is_linear(layer) else packed
    return torch.zeros(width, width, dtype=torch.float64)


def fisher(model: nn.Module, family: Family, live: Updates, rows: Rows) -> dict[str, State]:
    """Return (1/n) Σ_i (∂ log p(y_i|x_i) / ∂θ)² of every live tensor, by module and name, in fp32 on the CPU.

    One row at a time, the log-probability of its answer as a whole: the square of a batch's mean gradient is another
    thing.
    """
    tensors = [t for site in live.values() for t in site.tensors.values()]
    trained = [t for t in tensors if t.requires_grad]
    squares = {id(t): torch.zeros_like(t, dtype=torch.float32, requires_grad=False) for t in tensors}
    with evaluating(model):
        for row in rows:
            batch = to_batch(model, family, [row])
            with torch.enable_grad():
                logits, targets = family.logits(model, batch)
                # Asked for directly, and not by `backward`: no gradient of the coming task's is touched.
                found = torch.autograd.grad(token_mean(logits, targets, 1), trained, allow_unused=True)
            for t, gradient in zip(trained, found, strict=True):
                if gradient is not None:
                    squares[id(t)] += gradient.detach().float().square() / len(rows)
    return {name: {key: squares[id(t)].cpu() for key, t in site.tensors.items()} for name, site in live.items()}
