"""Decides whether a penalty is computed in tiles, and falls back to plain torch where that cannot be or is wrong.

``EVERLORA_KERNELS`` is ``off`` (plain torch everywhere, the default until tiles are measured on a device), ``auto``
(tiles on a CUDA device where Triton is installed), or ``factors`` (the past is always given as factors, which needs
the least memory; tiles wherever Triton computes, also in its interpreter).
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.updates import LowRank

SWITCH = "EVERLORA_KERNELS"
FACTORS_UP_TO = 32
"""Up to about this rank of the past a GPU makes an entry from its factors (2 R operations in fp32) in the time in
which it reads one of four bytes: with 60 TFLOP/s and 4.8 TB/s at 25, with 19.5 TFLOP/s and 2 TB/s at 20 (arithmetic,
not measured)."""
RATE = "rate"
"""Stands among the constants of penalties that are computed in tiles, and among no others."""
RANKS = 64
"""The largest rank of an update that a tile holds."""
AGREE = 1e-4
"""How far tiles may be from plain torch at the first use, relative to the norms: well above rounding in fp32."""

Form = Literal["energy", "sign", "sign_detached", "l1"]
Factors = LowRank
Found = tuple[Tensor, Tensor, Tensor]
"""A penalty (L,), and its gradients with respect to A (L, r, i) and to B (L, o, r), in fp32."""

_checked: set[tuple[object, ...]] = set()
_given_up: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Holds what a penalty on the entries of D = scale · B A − start is computed from, for ``L`` modules of one shape.

    Attributes:
        A: (L, r, i).
        B: (L, o, r).
        scale: part of D.
        past: W as exact factors of scale 1; or, dense (L, o, i), what the form makes of it (``energy``: E², ``sign``:
            σ); None for no past, W = 0.
        rate: (L,), by which W is multiplied first: 1 / the divisor of E, or η.
        start: what is subtracted, of scale 1; None for 0.
    """

    A: Tensor
    B: Tensor
    scale: float
    past: Tensor | LowRank | None
    rate: Tensor
    start: LowRank | None = None

    @property
    def W(self) -> Tensor:
        """Return rate · W as a matrix, (L, o, i), from its factors; 0 where there is no past."""
        dense = self.past.dense() if isinstance(self.past, LowRank) else self.A.new_zeros(())
        return self.rate.view(-1, 1, 1) * dense

    def modules(self, here: slice) -> Problem:
        """Return the problem of some of the modules."""

        def some(tensor: Tensor) -> Tensor:
            return tensor[here]

        past = self.past.map(some) if isinstance(self.past, LowRank) else self.past
        past = some(past) if isinstance(past, Tensor) else past
        start = None if self.start is None else self.start.map(some)
        return replace(self, A=some(self.A), B=some(self.B), past=past, rate=some(self.rate), start=start)


def mode() -> str:
    """Return what the switch says.

    Raises:
        ConfigError: it says something else.
    """
    chosen = os.environ.get(SWITCH, "") or "off"
    if chosen not in ("auto", "off", "factors"):
        raise ConfigError(f"{SWITCH} must be auto, off or factors, not {chosen!r}")
    return chosen


def use_tiles(device: torch.device) -> bool:
    """Return whether penalties on a device are prepared to be computed in tiles.

    >>> use_tiles(torch.device("cpu"))
    False
    """
    chosen = mode()
    if chosen == "factors":
        return True
    return chosen == "auto" and device.type == "cuda" and not _given_up and _installed()


@cache
def _installed() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def keep_factors(rank: int) -> bool:
    """Return whether a past of this rank is given as factors, and not as what has been made of it once a task."""
    return mode() == "factors" or rank <= FACTORS_UP_TO


def solve(form: Form, problem: Problem, plain: Callable[[Problem], Found]) -> Found:
    """Compute a penalty and its gradients in tiles, or by ``plain`` where tiles cannot be used.

    The first result of each kind is compared with ``plain`` on its first module: a compiler that is new to a device
    may fail, and may be wrong. Either is said once, and from then on plain torch computes.
    """
    if _fits(problem):
        try:
            # Triton is not installed everywhere, and takes a second to import.
            from everlora.kernels import tiles

            found = tiles.solve(form, problem)
            A, past = problem.A, type(problem.past)
            kind = (form, A.device, A.dtype, A.shape[-2:], past, problem.start is None)
            if kind not in _checked:
                _compare([one[:1] for one in found], plain(problem.modules(slice(1))))
                _checked.add(kind)
            return found
        except Exception as error:  # whatever a compiler raises
            _give_up(error)
    # One module after the other: whoever prepared this did so for a device on which whole stacks take gigabytes.
    each = [plain(problem.modules(slice(k, k + 1))) for k in range(len(problem.A))]
    value, on_A, on_B = (torch.cat(some) for some in zip(*each, strict=True))
    return value, on_A, on_B


def _fits(problem: Problem) -> bool:
    """Return whether tiles can compute a problem: where it is, of which types, of which rank."""
    floats = (torch.float32, torch.bfloat16, torch.float16)
    return (
        not _given_up
        and mode() != "off"
        and problem.A.dtype in floats
        and problem.A.shape[-2] <= RANKS
        and _installed()
        and (problem.A.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
    )


def _compare(found: list[Tensor], expected: Found) -> None:
    """Refuse results that are not the expected ones.

    Raises:
        ArithmeticError: they are others.
    """
    for name, one, other in zip(("value", "gradient of A", "gradient of B"), found, expected, strict=True):
        size = float(other.norm())
        if not float((one - other).norm()) <= AGREE * size:  # NaN fails here too
            raise ArithmeticError(f"its {name} differs from that of plain torch by more than {AGREE:g}")


def _give_up(error: Exception) -> None:
    """Use plain torch from now on, and say so once."""
    if not _given_up:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        logging.getLogger("everlora").warning(
            "everlora: penalties are computed in plain torch, since their Triton kernel failed (%s); "
            "%s=off is the same without this line",
            reason,
            SWITCH,
        )
        _given_up.append(reason)
