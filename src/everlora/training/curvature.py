"""Measures the Kronecker factors of a task's Fisher information, without ever holding a gradient of a whole matrix.

Of each row the gradient of a linear layer is G = Σ_tokens g xᵀ, (o, i), with inputs x and output gradients g. Its two
products need no G: with the Gram matrices of the row's tokens, G Gᵀ = gᵀ (x xᵀ) g and Gᵀ G = xᵀ (g gᵀ) x. Nor does a
wide product need a matrix of its size: with x xᵀ = T Tᵀ, a matrix of tokens, gᵀ T is a root of G Gᵀ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from everlora.core.roles import Curvature, CurvatureRoots, SymmetricRoot
from everlora.models.families import Family
from everlora.models.families.heads import evaluating
from everlora.parts import factor_stores
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.trainer import token_mean


def curvature(
    model: nn.Module,
    family: Family,
    layers: Mapping[str, nn.Module],
    rows: Rows,
    generator: torch.Generator,
    root_columns: Callable[[int], int | None] = lambda n: None,
) -> dict[str, Curvature | CurvatureRoots]:
    """Return the Kronecker factors of each layer's Fisher information, in fp32 on the CPU.

    Layers that no gradient goes through have none.

    Every row's answer is drawn from what the model itself predicts there, token by token behind the true ones, since
    with the true answers the products would be those of the empirical Fisher, which vanishes where a task is learned.
    The loss of a row is the sum over its answer's tokens.

    Args:
        model: with what was trained on it, and what earlier tasks left below it as training sees that; a merge that
            answers in their place (PS-LoRA, TIES) is not looked at.
        family: how it reads rows.
        layers: the linear layers below the adapter, by path.
        rows: the rows that are looked at.
        generator: on the CPU; draws the answers.
        root_columns: in how many columns a factor of this width is summed; None: as the matrix that it is.
    """
    sums = {name: Products(root_columns) for name in layers}
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

    root_columns: Callable[[int], int | None] = lambda n: None
    sums: tuple[Tensor | SymmetricRoot, Tensor | SymmetricRoot] | None = None
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
        left, right = self.sums or (None, None)
        self.sums = self._more(left, g, x), self._more(right, x, g)

    def _more(self, so_far: Tensor | SymmetricRoot | None, tokens: Tensor, others: Tensor) -> Tensor | SymmetricRoot:
        """Add gᵀ (x xᵀ) g of every row, (b, t, n), to a sum; with x and g exchanged it is the other product."""
        columns = self.root_columns(tokens.shape[-1])
        if isinstance(so_far, Tensor) or columns is None:
            # (b, t, n) to (n, n) in one product over rows and tokens, without one matrix a row.
            product = tokens.flatten(0, 1).mT @ (others @ others.mT @ tokens).flatten(0, 1)
            return so_far + product if isinstance(so_far, Tensor) else product
        if tokens.device.type == "mps":  # where there are no decompositions
            tokens, others = tokens.cpu(), others.cpu()
        width = tokens.shape[-1]
        found = so_far or SymmetricRoot(
            root=tokens.new_zeros(width, 0), diagonal=tokens.new_zeros(width), error=tokens.new_zeros(())
        )
        for mine, other in zip(tokens, others, strict=True):
            # Padding has no gradient, and adds nothing.
            adds = mine.any(-1) & other.any(-1)
            root = torch.linalg.qr(other[adds].mT, mode="r").R.mT
            found = factor_stores.append(found, mine[adds].mT @ root, columns)
        return found

    def mean(self, rows: int) -> Curvature | CurvatureRoots | None:
        """Divide by the number of rows; None of a layer that no gradient went through."""
        if self.sums is None:
            return None
        left, right = (_divided(one, rows) for one in self.sums)
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            return Curvature(left=left, right=right)
        return CurvatureRoots(left=left, right=right)


def _divided(total: Tensor | SymmetricRoot, rows: int) -> Tensor | SymmetricRoot:
    """Return a sum by the number of rows, on the CPU."""
    if isinstance(total, Tensor):
        return (total / rows).cpu()
    root, diagonal, error = total.root / rows**0.5, total.diagonal / rows, total.error / rows
    return replace(total, root=root.cpu(), diagonal=diagonal.cpu(), error=error.cpu())


def by_row(tokens: Tensor) -> Tensor:
    """Bring what a layer reads or its gradient to rows and tokens, (b, s, n), fp32.

    A layer that reads (b, n), a pooler say, reads one token a row. Of one that reads more dimensions (windows of an
    image) all but the first and the last are taken for tokens.
    """
    tokens = tokens.float()
    return tokens.unsqueeze(1) if tokens.ndim == 2 else tokens.flatten(1, -2)
