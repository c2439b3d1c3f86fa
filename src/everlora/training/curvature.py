"""Measures the Kronecker factors of a task's Fisher information, without ever holding a gradient of a whole matrix.

Of each row the gradient of a linear layer is G = Σ_tokens g xᵀ, (o, i), with inputs x and output gradients g. Its two
products need no G: with the Gram matrices of the row's tokens, G Gᵀ = gᵀ (x xᵀ) g and Gᵀ G = xᵀ (g gᵀ) x.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from everlora.core.roles import Curvature
from everlora.models.families import Family
from everlora.models.families.heads import evaluating
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.trainer import token_mean


def curvature(
    model: nn.Module, family: Family, layers: Mapping[str, nn.Module], rows: Rows, generator: torch.Generator
) -> dict[str, Curvature]:
    """Return the Kronecker factors of each layer's Fisher information, in fp32 on the CPU.

    Layers that no gradient goes through have none.

    Every row's answer is drawn from what the model itself predicts there, token by token behind the true ones, since
    with the true answers the products would be those of the empirical Fisher, which vanishes where a task is learned.
    The loss of a row is the sum over its answer's tokens.

    Args:
        model: as it answers now, with what was trained on it.
        family: how it reads rows.
        layers: the linear layers below the adapter, by path.
        rows: the rows that are looked at.
        generator: on the CPU; draws the answers.
    """
    sums = {name: Products() for name in layers}
    with evaluating(model), ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(sums[name].watch).remove)
        for k in range(0, len(rows), AT_ONCE):
            batch = to_batch(model, family, rows[k : k + AT_ONCE])
            with torch.enable_grad():
                logits, targets = family.logits(model, batch)
                # On the CPU, whose generator draws the same answers whatever device the model is on.
                drawn = torch.multinomial(logits.detach().float().softmax(-1).cpu(), 1, generator=generator)
                # Divided by 1: the information is that of a row's whole answer, whose log-probability is a sum over
                # tokens.
                token_mean(logits, drawn[:, 0].to(targets.device), 1).backward()  # type: ignore[no-untyped-call]
    # The pass backward has filled the gradients of the adapter, too; the next task must not begin with them.
    model.zero_grad(set_to_none=True)
    means = {name: found.mean(len(rows)) for name, found in sums.items()}
    return {name: mean for name, mean in means.items() if mean is not None}


@dataclass
class Products:
    """Sums G Gᵀ and Gᵀ G of one layer over rows, filled while gradients pass through it.

    A layer that is called several times in one pass has one gradient per row, summed over the calls.
    """

    sums: tuple[Tensor, Tensor] | None = None
    calls: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)

    def watch(self, layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """Note the inputs of a call, and wait for the gradient of its outputs; a forward hook."""
        # A tensor of its own, which needs a gradient: an adapter adds to it in place, and a view would lose the hook.
        out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
        call = len(self.calls)
        self.calls.append((by_row(args[0].detach()), None))

        def receive(gradient: Tensor) -> None:
            self.calls[call] = (self.calls[call][0], by_row(gradient))
            # Gradients arrive from the last call to the first. The product of a sum is not the sum of products, so it
            # waits until all calls of a row have theirs.
            if all(g is not None for _, g in self.calls):
                self._add()

        out.register_hook(receive)  # type: ignore[no-untyped-call]
        return out

    def _add(self) -> None:
        """Add the products of the rows whose gradients have all arrived."""
        x = torch.cat([x for x, _ in self.calls], 1)
        g = torch.cat([g for _, g in self.calls if g is not None], 1)
        self.calls = []
        # (b, t, n) to (n, n) in one product over rows and tokens, without one matrix a row.
        left = g.flatten(0, 1).mT @ (x @ x.mT @ g).flatten(0, 1)
        right = x.flatten(0, 1).mT @ (g @ g.mT @ x).flatten(0, 1)
        self.sums = (left, right) if self.sums is None else (self.sums[0] + left, self.sums[1] + right)

    def mean(self, rows: int) -> Curvature | None:
        """Divide by the number of rows; None of a layer that no gradient went through."""
        if self.sums is None:
            return None
        left, right = self.sums
        return Curvature(left=(left / rows).cpu(), right=(right / rows).cpu())


def by_row(tokens: Tensor) -> Tensor:
    """Bring what a layer reads or its gradient to rows and tokens, (b, s, n), fp32.

    A layer that reads (b, n), a pooler say, reads one token a row. Of one that reads more dimensions (windows of an
    image) all but the first and the last are taken for tokens.
    """
    tokens = tokens.float()
    return tokens.unsqueeze(1) if tokens.ndim == 2 else tokens.flatten(1, -2)
