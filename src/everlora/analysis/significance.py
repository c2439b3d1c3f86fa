"""Paired tests, their correction over methods, and the smallest difference that runs can show. Pure functions.

Two questions are asked of a paired difference d, both two-sided, and the larger p is the answer: would other runs say
the same, and would other test rows?

    runs   t = mean(d_u) √U / s over the U paired differences of runs, U − 1 degrees of freedom (Student 1908)
    rows   z = mean(d) / SE, SE the standard deviation of the resampled paired difference of
           `everlora.analysis.compare`, which draws runs and test rows (Efron and Tibshirani 1993, chapters 6 and 13)

Either alone claims too much: resamples of U runs show (U−1)/U of their variance, so that of two methods that are
alike 3 runs each would differ in 1 of 4 comparisons where there are many rows; and runs share their rows, so that t
takes what these rows favour for the truth. With one common run nothing is known of others: its p is of rows alone and
tells no methods apart.

Over methods p is corrected by Holm's step-down procedure (Holm 1979), which holds the chance of a single false claim
in a table at α whatever the dependence between methods. Where the best of a section is found by the same figures, the
correction is over all pairs of its methods, for each of them could have been the best.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

ALPHA, POWER = 0.05, 0.8
Key = TypeVar("Key", bound=Hashable)
Numbers = NDArray[np.float64]
SMALL = 1e-9
"""Percentage points below which a spread is rounding."""


def over_runs(differences: Numbers) -> float:
    """Two-sided p of paired differences of runs (U,), U at least 2."""
    return _two_sided(float(differences.mean()), _error_of_runs(differences), len(differences) - 1)


def over_rows(mean: float, draws: Numbers) -> float:
    """Two-sided p of a paired difference from its resamples (B,), not below what B can show."""
    return max(_two_sided(mean, float(draws.std()), np.inf), 2 / (len(draws) + 1) if draws.std() < SMALL else 0.0)


def paired(differences: Numbers, draws: Numbers) -> tuple[float, str]:
    """The p of a paired difference, and what it was asked of: ``rows``, or ``runs and rows``."""
    rows = over_rows(float(differences.mean()), draws)
    return (rows, "rows") if len(differences) < 2 else (max(rows, over_runs(differences)), "runs and rows")


def told_apart(p: float, test: str) -> bool:
    """Whether a corrected p tells two methods apart."""
    return test != "rows" and p <= ALPHA


def holm(found: Mapping[Key, float]) -> dict[Key, float]:
    """P of several comparisons, corrected: p'_(k) = max_{j ≤ k} min(1, (m − j + 1) p_(j)), in increasing order."""
    corrected: dict[Key, float] = {}
    above = 0.0
    for k, name in enumerate(sorted(found, key=lambda name: (found[name], str(name)))):
        above = max(above, min(1.0, (len(found) - k) * found[name]))
        corrected[name] = above
    return corrected


def detectable(differences: Numbers, draws: Numbers, comparisons: int = 1, power: float = POWER) -> float | None:
    """The smallest true difference that `paired` would find with probability ``power``; None where nothing varied.

    The larger of (t_{1−α/2m} + t_power) s / √U and (z_{1−α/2m} + z_power) SE for m comparisons: the first step of
    Holm's procedure. Source: Card et al. 2020, section 2.

    Args:
        differences: of runs, (U,).
        draws: the resampled paired difference, (B,).
        comparisons: how many are corrected for.
        power: the probability.
    """
    u, rows = len(differences), float(draws.std())
    if u < 2 or rows < SMALL:
        return None
    tail = 1 - ALPHA / (2 * comparisons)
    reach = [(_quantile(df, tail) + _quantile(df, power)) for df in (u - 1, np.inf)]
    return max(reach[0] * _error_of_runs(differences), reach[1] * rows)


def _error_of_runs(differences: Numbers) -> float:
    return float(differences.std(ddof=1)) / sqrt(len(differences))


def _two_sided(mean: float, error: float, df: float) -> float:
    if abs(mean) < SMALL:
        return 1.0
    return float(2 * stdtr(df, -abs(mean) / error)) if error > SMALL else 0.0


def _quantile(df: float, share: float) -> float:
    return float(stdtrit(df, share))
