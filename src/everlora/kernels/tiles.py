"""Computes penalties on the entries of D = scale · B A − start and their gradients in Triton, a tile of D at a time.

One program has a band of rows of one module and goes through its tiles from left to right. Of each it makes D and W
(or reads what has been made of W), f(D, W) and Π = scale · ∂f/∂D, and adds

    to the sums of f over its rows               in registers, one store at the end
    to its rows of ∂Ω/∂B = Π Aᵀ                   in registers, one store at the end
    its share of ∂Ω/∂A = Bᵀ Π                     one store per tile, added up over bands afterwards

in fp32. Nothing is added by two programs at the same place, so that results are the same bits every time. The shares
take r / 64 of the size of D; of so few modules at once that they stay within `SHARES`.

Arguments of kernels have no types but ``constexpr``: a compiler, unlike the interpreter, takes all others for values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from everlora.core.updates import LowRank, precise
from everlora.kernels.choice import Form, Found, Problem

SHARES = 64 * 2**20
"""Bytes of the shares of ∂Ω/∂A that exist at once."""
PRECISION = "ieee"
"""Of products: ``ieee`` is fp32, ``tf32x3`` nearly so, on tensor cores."""
ROWS, DEPTH = 64, 32
"""The height of a band, and how many past directions are multiplied at once."""


@triton.jit
def _tanh(x):
    """Return tanh(x) to fp32 rounding; Triton's own differs from device to device, and its interpreter has none."""
    size = tl.minimum(tl.abs(x), 15.0)  # 1 in fp32, and exp stays finite
    square = size * size
    # By exp alone small arguments, of which all updates begin, would lose their digits to 1 - 1.
    near = size * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    return tl.where(x < 0, -1.0, 1.0) * tl.where(size < 0.15, near, far)


@triton.jit
def _block(pointer, rows, columns, height, width):
    """Return a block of a matrix (height, width) in fp32, 0 outside of it."""
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    return tl.load(pointer + rows[:, None] * width + columns[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _product(up, down, rows, columns, out, into, rank, STEP: tl.constexpr, PRECISE: tl.constexpr, like):
    """Return a tile of the product of factors (out, rank) and (rank, into), some directions at a time."""
    tile = like * 0.0
    depth = tl.arange(0, STEP)
    for at in range(0, rank, STEP):
        left, right = _block(up, rows, at + depth, out, rank), _block(down, at + depth, columns, rank, into)
        tile += tl.dot(left, right, input_precision=PRECISE)
    return tile


@triton.jit
def _entries(D, W, times, scale, FORM: tl.constexpr, FACTORS: tl.constexpr):
    """Return f and Π = scale · ∂f/∂D of the entries of a tile; W is times · W_past, or what has been made of it."""
    if FORM == "energy":
        if FACTORS:
            W = W * W
        return D * D * W, 2.0 * scale * D * W
    elif FORM == "l1":
        return tl.abs(D), scale * (tl.where(D > 0, 1.0, 0.0) - tl.where(D < 0, 1.0, 0.0))
    else:
        if FACTORS:
            W = _tanh(W)
        h = _tanh(times * D)
        weight = 1.0 - W * h
        u = weight * D
        slope = weight
        if FORM == "sign":
            slope = weight - times * W * (1.0 - h * h) * D
        return u * u, 2.0 * scale * u * slope


@triton.jit
def _band(
    A, B, past, past_A, past_B, start_A, start_B, rate, sums, shares, grad_B,
    scale, out, into, rank, past_rank, start_rank,
    FORM: tl.constexpr, PAST: tl.constexpr, START: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, RANK: tl.constexpr, STEP: tl.constexpr, PRECISE: tl.constexpr,
):  # fmt: skip
    """Compute one band of rows of one module."""
    band, bands = tl.program_id(0), tl.num_programs(0)
    k = tl.program_id(1).to(tl.int64)  # offsets of all modules together do not fit into 32 bits
    rows, ranks = band * ROWS + tl.arange(0, ROWS), tl.arange(0, RANK)
    b = _block(B + k * out * rank, rows, ranks, out, rank)
    times = tl.load(rate + k)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    on_B = tl.zeros((ROWS, RANK), dtype=tl.float32)
    for first in range(0, into, COLS):
        columns = first + tl.arange(0, COLS)
        a = _block(A + k * rank * into, ranks, columns, rank, into)
        D = scale * tl.dot(b, a, input_precision=PRECISE)
        if START:
            up, down = start_B + k * out * start_rank, start_A + k * start_rank * into
            D -= _product(up, down, rows, columns, out, into, start_rank, STEP, PRECISE, D)
        W = tl.zeros((ROWS, COLS), dtype=tl.float32)
        if PAST == "dense":
            W = _block(past + k * out * into, rows, columns, out, into)
        if PAST == "factors":
            up, down = past_B + k * out * past_rank, past_A + k * past_rank * into
            W = times * _product(up, down, rows, columns, out, into, past_rank, STEP, PRECISE, W)
        f, slope = _entries(D, W, times, scale, FORM, PAST == "factors")
        total += tl.sum(f, 1)
        on_B += tl.dot(slope, tl.trans(a), input_precision=PRECISE)
        share = tl.dot(tl.trans(b), slope, input_precision=PRECISE)
        inside = (ranks[:, None] < rank) & (columns[None, :] < into)
        here = shares + (k * bands + band) * rank * into
        tl.store(here + ranks[:, None] * into + columns[None, :], share, mask=inside)
    tl.store(sums + k * out + rows, total, mask=rows < out)
    inside = (rows[:, None] < out) & (ranks[None, :] < rank)
    tl.store(grad_B + k * out * rank + rows[:, None] * rank + ranks[None, :], on_B, mask=inside)


def solve(form: Form, problem: Problem, *, rows: int = ROWS, columns: int | None = None) -> Found:
    """Compute value and gradients of a penalty; see `Problem` for its tensors, and ``form`` for f.

        energy         D² E²                            E = rate · W
        sign           ((1 − tanh(rate · D) σ) D)²      σ = tanh(rate · W)
        sign_detached  the same, of which the gradient takes the weight of D as a constant
        l1             |D|

    Args:
        form: f, as above.
        problem: its tensors, in fp32, bf16 or fp16.
        rows: the height of a band, a power of 2 of at least 16.
        columns: the width of a tile, the same; by the rank where none is given.
    """
    count, rank, into = problem.A.shape
    out = problem.B.shape[-2]
    # Compiled for CUDA's 9.0, wider tiles than these spill registers.
    columns = columns or (64 if rank <= 16 else 32)
    bands = triton.cdiv(out, rows)
    at_once = max(1, min(count, SHARES // (4 * bands * rank * into)))
    with torch.no_grad():
        found = [
            _launch(form, problem.modules(slice(k, k + at_once)), rows, columns) for k in range(0, count, at_once)
        ]
    value, on_A, on_B = (torch.cat(each) if len(each) > 1 else each[0] for each in zip(*found, strict=True))
    return value, on_A, on_B


def _launch(form: Form, problem: Problem, rows: int, columns: int) -> Found:
    """Compute some modules at once: their shares of ∂Ω/∂A exist together."""
    A, B, rate = problem.A.contiguous(), problem.B.contiguous(), problem.rate.float().contiguous()
    (count, rank, into), out = A.shape, B.shape[-2]
    bands = triton.cdiv(out, rows)
    past, start = problem.past, problem.start
    factors = past if isinstance(past, LowRank) and past.rank else None
    dense = past.contiguous() if isinstance(past, Tensor) else None
    sums, on_B = (torch.empty(count, *shape, device=A.device) for shape in ((out,), (out, rank)))
    shares = torch.empty(count, bands, rank, into, device=A.device)
    # A pointer that is not used must still be one; `rate` is at hand.
    given = [rate if one is None else one.contiguous() for one in (*_pair(factors), *_pair(start))]
    _band[(bands, count)](
        A,
        B,
        rate if dense is None else dense,
        *given,
        rate,
        sums,
        shares,
        on_B,
        float(problem.scale),
        out,
        into,
        rank,
        factors.rank if factors else 0,
        start.rank if start else 0,
        FORM=form,
        PAST="dense" if dense is not None else "factors" if factors else "none",
        START=start is not None,
        ROWS=rows,
        COLS=columns,
        RANK=max(16, triton.next_power_of_2(rank)),
        STEP=DEPTH,
        PRECISE=PRECISION,
        num_warps=8,
        num_stages=2,
    )
    # Sums of rows first, then in fp64: one long sum in fp32 loses digits at 4096 x 4096.
    return precise(sums).sum(-1).float(), shares.sum(1), on_B


def _pair(factors: LowRank | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the two factors, or nothing twice."""
    return (None, None) if factors is None else (factors.A, factors.B)
