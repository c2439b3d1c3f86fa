"""Capped ELLA: a method of one's own, in one file outside the package.

    L = L_task + λ Σ_modules ‖ΔW_t ⊙ min(E, c)‖²_F,   E = |W_past| / rms(W_past)

ELLA's pull grows with the square of the past's energy. Here the energy is cut at c, so that no entry of the past is
worth more than c² times a typical one.

    symbol   here   shape
    λ, c     lam, cap

Default c = 2: a guess, to show how an option looks.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from everlora import Method, method, parse
from everlora.parts import EnergyOverlap, StrengthOption, read_strength


@dataclass(frozen=True, kw_only=True)
class CappedEnergy(EnergyOverlap):
    """The energy overlap with an energy that is cut at ``cap``."""

    name: ClassVar[str] = "capped_energy"
    cap: float = 2.0

    def weigh(self, total: Tensor) -> Tensor:
        return super().weigh(total).clamp(max=self.cap)


@method(
    "capped-ella",
    title="ELLA with a bounded energy",
    paper="an example",
    stores="r(o+i) per adapted matrix and task",
    cost="6oir + 5oi operations per adapted matrix",
)
def capped_ella(*, lam: StrengthOption = "auto", rho: float | None = None, cap: float = 2.0) -> Method:
    """Build it; ``rho`` is for ``lam=auto``."""
    pull = CappedEnergy(lam=read_strength(lam, rho), energy="rms", cap=cap)
    return replace(parse("inclora"), name="capped-ella", penalties=(pull,))
