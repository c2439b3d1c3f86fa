"""Paired tests, their correction over methods, and the smallest difference that runs can show. Pure functions.

Two tests, both of the hypothesis that the paired difference is none and both two-sided:

    resampled   p = 2 min(1 + #{θ_b ≤ 0}, 1 + #{θ_b ≥ 0}) / (B + 1) of the paired bootstrap of
                `everlora.analysis.compare`, which draws runs and test rows: it asks whether other seeds and other rows
                would say the same (Efron and Tibshirani 1993, ch. 15 and 16)
    sign-flip   p = share of the 2^U sign assignments of the U paired differences of runs whose |mean| is at least the
                observed one: exact, with no share for rows (Dror et al. 2018, section 3.2). With fewer than 6 runs it
                cannot come below 5 %, so it is used from 6 runs on.

Over methods p is corrected by Holm's step-down procedure (Holm 1979), which holds the chance of a single false claim
in a table at α whatever the dependence between methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ALPHA, POWER = 0.05, 0.8
ENOUGH, MANY = 6, 16
"""Paired runs from which the sign-flip test can speak, and up to which all signs are tried."""


def resampled(draws: NDArray[np.float64]) -> float:
    """Two-sided p of a paired difference from its resamples (B,)."""
    low, high = int((draws <= 0).sum()), int((draws >= 0).sum())
    return min(1.0, 2 * (1 + min(low, high)) / (len(draws) + 1))


def sign_flip(differences: NDArray[np.float64]) -> float:
    """Exact two-sided p of paired differences of runs (U,), U at most 16."""
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(differences))))
    means = np.abs(signs @ differences)
    return float((means >= abs(differences.sum()) - 1e-9).mean())


def paired(differences: NDArray[np.float64], draws: NDArray[np.float64]) -> tuple[float, str]:
    """The p of a paired difference, and the test that it is from."""
    if ENOUGH <= len(differences) <= MANY:
        return sign_flip(differences), "sign-flip"
    return resampled(draws), "resampled"


def holm(found: Mapping[str, float]) -> dict[str, float]:
    """P of several comparisons, corrected: p'_(k) = max_{j ≤ k} min(1, (m − j + 1) p_(j)), in increasing order."""
    corrected: dict[str, float] = {}
    above = 0.0
    for k, name in enumerate(sorted(found, key=lambda name: (found[name], name))):
        above = max(above, min(1.0, (len(found) - k) * found[name]))
        corrected[name] = above
    return corrected


def detectable(draws: NDArray[np.float64], alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that would be found with probability ``power``: (z_{1−α/2} + z_power) · SE.

    SE is the standard deviation of the resampled paired difference (B,). Source: Card et al. 2020, section 2.
    """
    z = NormalDist().inv_cdf
    return float((z(1 - alpha / 2) + z(power)) * draws.std())
