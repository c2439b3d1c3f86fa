"""Reads the words in which people set a strength: a number, ``auto`` with its share, or a budget."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from everlora.core.errors import ConfigError
from everlora.core.roles import AutoStrength, Budget, ProbedBudget, Strength

RHO = 0.03
"""The share that ``lam=auto`` reaches where no share is named."""
NATS = 3e-4
"""What ``lam=budget`` allows each earlier task to lose where no number is named."""


def read_budget(given: Any) -> Any:
    """Return the budget that is meant by ``budget`` or ``budget(nats=…, probes=…)``; anything else as it is.

    >>> read_budget("budget(nats=1e-3)"), read_budget("budget(probes=8)")
    (Budget(nats=0.001), ProbedBudget(nats=0.0003, probes=8))
    """
    found = re.fullmatch(r"budget(?:\(([^()]*)\))?", given.strip()) if isinstance(given, str) else None
    if found is None:
        return given
    try:
        pairs = [one.split("=") for one in (found[1] or "").replace(" ", "").split(",") if one]
        options = dict(pairs)
        nats, probes = float(options.pop("nats", NATS)), options.pop("probes", None)
        if options or len({name for name, _ in pairs}) < len(pairs):
            raise ValueError
        return Budget(nats=nats) if probes is None else ProbedBudget(nats=nats, probes=int(probes))
    except ValueError:
        raise ValueError(
            f"a budget is a number of nats, and perhaps of rows to look at: budget(nats={NATS:g}) or "
            f"budget(nats={NATS:g}, probes=8), not {found[1]!r}"
        ) from None


def read_option(given: Any) -> Any:
    """Return what `read_budget` does, and refuse words that are no strength in one sentence.

    >>> read_option("auto"), read_option("0.3")
    ('auto', '0.3')
    """
    found = read_budget(given)
    if isinstance(found, str) and found != "auto":
        try:
            float(found)
        except ValueError:
            raise ValueError(f"a strength is a number, auto, or budget(nats={NATS:g})") from None
    return found


StrengthOption = Annotated[float | Literal["auto"] | Budget, BeforeValidator(read_option)]
"""What an option ``lam`` may be."""


def read_strength(
    lam: StrengthOption, rho: float | None = None, *, per_module: bool = False, share: float = RHO
) -> Strength:
    """Return the strength that is meant; ``share`` is the ρ of a method that has one of its own.

    >>> read_strength(0.3), read_strength("auto", rho=0.05), read_strength("budget")
    (0.3, AutoStrength(rho=0.05, per_module=False), Budget(nats=0.0003))

    Raises:
        ConfigError: a share, or one λ per module, is named together with a number or a budget.
    """
    lam = read_budget(lam)
    if lam == "auto":
        return AutoStrength(rho=share if rho is None else rho, per_module=per_module)
    if rho is not None or per_module:
        there = "a budget" if isinstance(lam, Budget) else f"lam={lam:g}"
        raise ConfigError(
            f"rho and per_module say how λ is found by its share; with {there} there is nothing to find: write "
            f"lam=auto, or leave them out"
        )
    return lam
