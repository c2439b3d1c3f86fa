"""Paired tests, their correction over methods, and the smallest difference that runs can show. Pure functions.

A paired difference d is asked, two-sided: would other runs and other test rows say the same?

    SE² = c V_runs + V_rows,    t = d / SE,    V_runs = s² / U,    c = U / (U − 1)
    df  = SE⁴ / ((c V_runs)² / (U − 1))                                    (Satterthwaite 1946)

    s        standard deviation of the U paired differences of runs, U − 1 in its denominator
    V_rows   variance of the resampled difference where test rows alone are drawn (Efron and Tibshirani 1993, chapter 6)

Runs share their rows, so neither variance holds the other: t over runs takes what these rows favour for the truth, and
rows alone know nothing of other seeds. What a run's answers owe to chance stands in both, which is on the safe side. c
makes up for a df that is itself found from few runs: of methods that are alike about 5 % are told apart from 3 runs on
(a test counts them). Fewer than 3 tell nothing apart, and their p is of rows alone.

Over methods p is corrected so that a table's chance of a single false claim is at most α, whatever the dependence.
Against a baseline that was named: Holm's step-down procedure (Holm 1979). Against a best that the same figures chose:
p times the number of other methods, since a false claim is one about the method that is truly best, and only so many
differences can bring it about (multiple comparisons with the best, Hsu 1984).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import inf, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

ALPHA, POWER = 0.05, 0.8
ENOUGH = 3
"""Runs from which methods are told apart."""
Key = TypeVar("Key", bound=Hashable)
Numbers = NDArray[np.float64]
SMALL = 1e-9
"""Percentage points below which a spread is rounding."""


def spread(differences: Numbers, rows: Numbers) -> tuple[float, float]:
    """SE and degrees of freedom of a mean paired difference; of rows alone where runs are fewer than `ENOUGH`.

    Args:
        differences: of runs, (U,).
        rows: the mean difference under resampled test rows, (B,).
    """
    of_rows, u = float(rows.var()), len(differences)
    if u < ENOUGH:
        return sqrt(of_rows), inf
    of_runs = float(differences.var(ddof=1)) / (u - 1)  # c s² / U
    both = of_runs + of_rows
    return sqrt(both), inf if sqrt(of_runs) < SMALL else (u - 1) * (both / of_runs) ** 2


def paired(differences: Numbers, rows: Numbers) -> tuple[float, str]:
    """The p of a paired difference, and what it was asked of: ``rows``, or ``runs and rows``; see `spread`."""
    mean = float(differences.mean())
    error, df = spread(differences, rows)
    if abs(mean) < SMALL:
        p = 1.0
    elif error < SMALL:
        p = 2 / (len(rows) + 1)  # as sure as there are resamples
    else:
        p = float(2 * stdtr(df, -abs(mean) / error))
    return p, "rows" if len(differences) < ENOUGH else "runs and rows"


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


def with_the_best(found: Mapping[Key, float]) -> dict[Key, float]:
    """P of comparisons with the best of a table, corrected: p' = min(1, m p) for m other methods."""
    return {name: min(1.0, len(found) * p) for name, p in found.items()}


def detectable(differences: Numbers, rows: Numbers, comparisons: int = 1, power: float = POWER) -> float | None:
    """The smallest true difference that `paired` would find with probability ``power``.

    (t_{1−α/2m} + t_power) SE for m comparisons: the first step of either correction. Source: Card et al. 2020, section
    2. None where nothing varied or runs are too few to tell anything apart.

    Args:
        differences: of runs, (U,).
        rows: the mean difference under resampled test rows, (B,).
        comparisons: how many are corrected for.
        power: the probability.
    """
    error, df = spread(differences, rows)
    if len(differences) < ENOUGH or error < SMALL:
        return None
    return error * float(stdtrit(df, 1 - ALPHA / (2 * comparisons)) + stdtrit(df, power))
