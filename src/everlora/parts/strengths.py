"""The words in which people set a strength: a number, or ``auto`` with the share that it is to reach."""

from __future__ import annotations

from typing import Literal

from everlora.core.errors import ConfigError
from everlora.core.roles import AutoStrength, Strength

StrengthOption = float | Literal["auto"]
RHO = 0.03
"""The share that ``lam=auto`` reaches where no share is named."""


def read_strength(
    lam: StrengthOption, rho: float | None = None, *, per_module: bool = False, share: float = RHO
) -> Strength:
    """Return the strength that is meant; ``share`` is the ρ of a method that has one of its own.

    >>> read_strength(0.3), read_strength("auto", rho=0.05)
    (0.3, AutoStrength(rho=0.05, per_module=False))

    Raises:
        ConfigError: a share, or one λ per module, is named together with a number.
    """
    if lam == "auto":
        return AutoStrength(rho=share if rho is None else rho, per_module=per_module)
    if rho is not None or per_module:
        raise ConfigError(
            f"rho and per_module say how λ is found; with lam={lam:g} there is nothing to find: write "
            f"lam=auto, or leave them out"
        )
    return lam
