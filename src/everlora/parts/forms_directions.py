"""Declares the form of directions and magnitudes (SD-LoRA)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from everlora.core.adapter import Adapter

Start = Literal["keep", "reset"]


def keep_product(alpha: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Return magnitude () and scales (L,) of a finished direction, with the product unchanged to the bit.

    The norm is the root mean square over layers of ‖B‖‖A‖ (L,), brought to the nearest power of two: multiplying and
    dividing by one loses nothing.
    """
    size = float(norms.double().square().mean().sqrt())
    power = 2.0 ** round(math.log2(size)) if size > 0 else 1.0
    return alpha * power, torch.full_like(norms, 1 / power)


def reset_magnitude(alpha: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Return magnitude 1, scales 1 / (‖B‖‖A‖) layer by layer, as the published code does: another function."""
    return torch.ones_like(alpha), torch.where(norms > 0, 1 / norms.clamp_min(1e-30), 0)


@dataclass(frozen=True, kw_only=True)
class DirectionsAdapter(Adapter):
    """Trains W0 + Σ_{i<t} α_i s_i B_i A_i + α_t B_t A_t: earlier pairs frozen, every α trained.

    Attributes:
        start: what a magnitude starts at when its direction is frozen: ``keep`` the function, or ``reset``.
    """

    policy: Literal["new", "continue"] = "continue"
    form: str = "directions"
    start: Start = "keep"

    def settle(self, alpha: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Return the magnitude () and the scales (L,) of a direction that was learned with ``alpha`` () and scale 1.

        Args:
            alpha: its magnitude so far.
            norms: ‖B‖_F ‖A‖_F per layer, (L,).
        """
        return keep_product(alpha, norms) if self.start == "keep" else reset_magnitude(alpha, norms)
