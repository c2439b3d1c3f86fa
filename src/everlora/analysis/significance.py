"""Tests paired differences, corrects over methods, and finds the smallest that runs can show. Pure functions.

A paired difference d is asked, two-sided: would other runs and other test rows say the same?

    SE² = c V_runs + V_rows,    t = d / SE,    V_runs = max(s², 2 MS) / U,    c = 1 + 2 / f,    f = (k − 1)(U − 1)
    df  = SE⁴ / ((c V_runs)² / f)                                              (Satterthwaite 1946)

    s²       variance of the U paired differences of runs, U − 1 in its denominator
    MS       mean square of methods x runs over the k methods of the table: what their differences vary by from run to
             run, estimated from all of them (randomised blocks, Fisher 1935); k = 2 is s² / 2
    V_rows   variance of the resampled difference where test rows alone are drawn (Efron and Tibshirani 1993)

Runs share their rows, so neither variance holds the other: t over runs takes what these rows favour for the truth, and
rows alone know nothing of other seeds. What a run's answers owe to chance stands in both, which is on the safe side.
Of few runs s² is often too small by chance, which the best of a table finds; one method may vary more than the others,
which MS does not know: hence the larger. Fewer than 3 runs tell nothing apart, and their p is of rows alone.

Over methods p is corrected so that a table's chance of a single false claim is about α at most (a test counts them,
with methods that vary alike and not). Against a baseline that was named: Holm's step-down procedure (Holm 1979).
Against a best that the same figures chose, any of the k (k − 1) / 2 pairs could have been looked at: Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Paired:
    """Holds a mean paired difference and how sure it is.

    Attributes:
        mean, error: of the difference, in percentage points.
        df: degrees of freedom of the error.
        runs: how many it is the mean of.
    """

    mean: float
    error: float
    df: float
    runs: int

    @property
    def enough(self) -> bool:
        """Return whether there are runs enough to tell two methods apart; else the error is of rows alone."""
        return self.runs >= ENOUGH

    @property
    def t(self) -> float:
        """Return the difference in units of its standard error."""
        if abs(self.mean) < SMALL:
            return 0.0
        return abs(self.mean) / self.error if self.error > SMALL else inf

    @property
    def p(self) -> float:
        """Return the two-sided p of this one difference."""
        return float(2 * stdtr(self.df, -self.t))


def paired(differences: Numbers, rows: Numbers, scores: Numbers) -> Paired:
    """Return error and degrees of freedom of a paired difference.

    Args:
        differences: of runs, (U,).
        rows: the mean difference under resampled test rows alone, (B,).
        scores: of the table's methods on the same runs, the two among them, (k, U).
    """
    mean, of_rows, u = float(differences.mean()), float(rows.var()), len(differences)
    if u < ENOUGH:
        return Paired(mean, sqrt(of_rows), inf, u)
    free = (len(scores) - 1) * (u - 1)
    # What neither the method nor the run explains. Three runs of two methods say little of it; all methods of a table
    # say more, and so their common spread is a lower bound for that of any two.
    left = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    of_runs = (1 + 2 / free) * max(float(differences.var(ddof=1)), 2 * float((left**2).sum()) / free) / u
    # Satterthwaite's degrees of freedom: the part that is due to rows counts as known.
    both = of_runs + of_rows
    return Paired(mean, sqrt(both), inf if sqrt(of_runs) < SMALL else free * (both / of_runs) ** 2, u)


def holm(found: Mapping[Key, float]) -> dict[Key, float]:
    """Correct p of several comparisons: p'_(k) = max_{j ≤ k} min(1, (m − j + 1) p_(j)), in increasing order."""
    corrected: dict[Key, float] = {}
    above = 0.0
    for k, name in enumerate(sorted(found, key=lambda name: (found[name], str(name)))):
        # Never below that of a smaller p, or a weaker finding could pass where a stronger one fails.
        above = max(above, min(1.0, (len(found) - k) * found[name]))
        corrected[name] = above
    return corrected


def corrected(found: Mapping[Key, Paired], chosen: bool) -> dict[Key, float]:
    """Correct p of differences from one method over them: a baseline, or one ``chosen`` as the best."""
    if chosen:
        return {name: min(1.0, looked_at(len(found), chosen) * one.p) for name, one in found.items()}
    # The baseline was named beforehand, so only the comparisons with it count, and Holm is sharper than Bonferroni.
    return holm({name: one.p for name, one in found.items()})


def looked_at(others: int, chosen: bool) -> int:
    """Count the comparisons of a table: with each other method, or all pairs where the best had to be found."""
    return (others + 1) * others // 2 if chosen else others


def detectable(one: Paired, comparisons: int = 1, power: float = POWER) -> float | None:
    """Return the smallest true difference that is told apart with probability ``power``; None if none is.

    (t_{1−α/2m} + t_power) SE for m comparisons: Bonferroni's correction and the first step of Holm's. Source: Card et
    al. 2020, section 2.
    """
    if not one.enough or one.error < SMALL:
        return None
    return one.error * float(stdtrit(one.df, 1 - ALPHA / (2 * comparisons)) + stdtrit(one.df, power))
