"""Splits a score that is taken over all rows at once into what each row adds, so that rows can be drawn again.

A corpus measure θ(w) is a function of the weights w of the rows, all 1 in truth, and has the same value at every
multiple of them. The share of row i is θ + n · ∂θ/∂w_i at w = 1: shares have θ as their mean, and their mean over
drawn rows is θ of those rows to first order (infinitesimal jackknife: Jaeckel 1972; Efron 1982, chapter 6). A share
may lie outside 0 to 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Counts = tuple[Sequence[int], Sequence[int], int, int]
"""Of one row: n-grams that are in a reference, and n-grams, by order; words, and words of the reference."""


def macro_f1(targets: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> tuple[float, ...]:
    """Return each row's share of the mean over classes of F1 = 2 TP / (targets + answers), in percent.

    Args:
        targets: the class of each row.
        answers: the class that was answered; what is none of the classes is a miss.
        classes: those that the mean is over, each of them a target or an answer somewhere.
    """
    pairs = list(zip(targets, answers, strict=True))
    hits = Counter(a for a, g in pairs if a == g)
    sizes = Counter([*targets, *answers])
    each = {name: 2 * hits[name] / sizes[name] for name in classes}
    theta, found = sum(each.values()), []
    for a, g in pairs:
        slopes = (
            (2 * (a == g) - each[name] * ((a == name) + (g == name))) / sizes[name] for name in {a, g} & each.keys()
        )
        found.append(100.0 * (theta + len(targets) * sum(slopes)) / len(each))
    return tuple(found)


def bleu(theta: float, rows: Sequence[Counts]) -> tuple[float, ...]:
    """Return each row's share of corpus BLEU = 100 · exp(min(0, 1 − r/l) + mean over orders of log(c_k / t_k)).

    An order without any match is smoothed, and its precision moves with no row.

    Args:
        theta: BLEU of all rows, in percent.
        rows: counts of each.
    """
    n = len(rows)
    c = [sum(column) for column in zip(*(row[0] for row in rows), strict=True)]
    t = [sum(column) for column in zip(*(row[1] for row in rows), strict=True)]
    words, reference = sum(row[2] for row in rows), sum(row[3] for row in rows)
    short = 0 < words < reference
    found = []
    for own, of, length, wanted in rows:
        slope = sum(own[k] / c[k] - of[k] / t[k] for k in range(len(c)) if c[k]) / len(c)
        slope += (reference * length / words - wanted) / words if short else 0.0
        found.append(theta * (1 + n * slope))
    return tuple(found)
