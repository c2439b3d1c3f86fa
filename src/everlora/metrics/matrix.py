"""Defines metrics of the accuracy matrix: every number that is made of one, with its id, formula and source.

Papers of this field write BWT for five different numbers, so each of them has an id of its own here. A metric is a
pure function of the matrix, and where it needs them of reference scores. What needs a cell that was not measured is
None.

    a[i][j]   percent on task j after learning task i, both from 1; T tasks, n_j test rows
    b[j]      percent of the base model on task j, before anything was learned
    c[j]      percent of guessing on task j
    s[j]      percent on task j of a model that learned it alone
    g[i][k]   percent on benchmark k of general ability after task i, before the first where i = 0; PPL[i] perplexity
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from everlora.metrics import scores
from everlora.metrics.registry import References, matrix_metrics, metric
from everlora.metrics.scores import Cell, ScoreMatrix

PERPLEXITY = "perplexity"
"""The one measure of general ability that is no percentage."""


def _per_task(m: ScoreMatrix, drop: Callable[[int], Cell]) -> Cell:
    """Divide the sum over the T − 1 earlier tasks by T, as SAPT and GainLoRA do."""
    return _scaled(scores.mean([drop(j) for j in range(len(m.tasks) - 1)]), (len(m.tasks) - 1) / len(m.tasks))


def _scaled(value: Cell, factor: float) -> Cell:
    return None if value is None else value * factor


def _change(m: ScoreMatrix, j: int) -> Cell:
    return scores.minus(m.final[j], m.cells[j][j])


def _curve(m: ScoreMatrix) -> list[Cell]:
    return [scores.mean(m.cells[i][: i + 1]) for i in range(len(m.tasks))]


def _forward(m: ScoreMatrix, start: Sequence[Cell] | None) -> Cell:
    if start is None:
        return None
    return scores.mean([scores.minus(m.cells[j - 1][j], start[j]) for j in range(1, len(m.tasks))])


def _against(m: ScoreMatrix, single: Sequence[Cell] | None) -> Cell:
    if single is None:
        return None
    return scores.mean([scores.minus(a, s) for a, s in zip(m.diagonal, single, strict=True)])


@metric(
    "oa",
    of="matrix",
    formula="(1/T) Σ_j a[T][j]; also called AA, ACC, Last",
    source="ELLA, Evaluations; macro average, confirmed by the authors of O-LoRA",
)
def _oa(m: ScoreMatrix, _: References) -> Cell:
    return scores.overall_accuracy(m)


@metric(
    "oa_weighted", of="matrix", formula="Σ_j n_j a[T][j] / Σ_j n_j", source="the one number that O-LoRA's code prints"
)
def _oa_weighted(m: ScoreMatrix, _: References) -> Cell:
    return scores.weighted_accuracy(m)


@metric(
    "bwt",
    of="matrix",
    formula="(1/(T−1)) Σ_{j<T} (a[T][j] − a[j][j])",
    source="Lopez-Paz and Ranzato 2017, eq. 3; ELLA, Evaluations",
)
def _bwt(m: ScoreMatrix, _: References) -> Cell:
    return scores.backward_transfer(m)


@metric("bwt_over_t", of="matrix", formula="(1/T) Σ_{j<T} (a[T][j] − a[j][j])", source="code of SAPT and GainLoRA")
def _bwt_over_t(m: ScoreMatrix, _: References) -> Cell:
    return _per_task(m, lambda j: _change(m, j))


@metric(
    "bwt_all_pairs",
    of="matrix",
    formula="(2/(T(T−1))) Σ_{i>j} (a[i][j] − a[j][j])",
    source="Díaz-Rodríguez et al. 2018, Don't forget, there is more than forgetting",
)
def _bwt_all_pairs(m: ScoreMatrix, _: References) -> Cell:
    return scores.mean([scores.minus(m.cells[i][j], m.cells[j][j]) for i in range(len(m.tasks)) for j in range(i)])


@metric(
    "bwt_relative",
    of="matrix",
    formula="(100/(T−1)) Σ_{j<T} (a[T][j] − a[j][j]) / a[j][j]",
    source="used where tasks have scores of different size; undefined where a task was not learned at all",
)
def _bwt_relative(m: ScoreMatrix, _: References) -> Cell:
    parts: list[Cell] = []
    for j in range(len(m.tasks) - 1):
        change, then = _change(m, j), m.cells[j][j]
        parts.append(None if change is None or not then else 100 * change / then)
    return scores.mean(parts)


@metric(
    "bwt_weighted",
    of="matrix",
    formula="Σ_{j<T} n_j (a[T][j] − a[j][j]) / Σ_{j<T} n_j",
    source="what the pooled test rows of O-LoRA's code come to",
)
def _bwt_weighted(m: ScoreMatrix, _: References) -> Cell:
    return scores.mean([_change(m, j) for j in range(len(m.tasks) - 1)], m.counts[:-1])


@metric(
    "forgetting",
    of="matrix",
    formula="(1/(T−1)) Σ_{j<T} (max_{j≤l<T} a[l][j] − a[T][j])",
    source="Chaudhry et al. 2018, eq. 3, whose l starts at 1, so that scores before task j was learned count, too; "
    "Avalanche's forgetting is forgetting_first",
)
def _forgetting(m: ScoreMatrix, _: References) -> Cell:
    return scores.forgetting(m)


@metric(
    "forgetting_first",
    of="matrix",
    formula="(1/(T−1)) Σ_{j<T} (a[j][j] − a[T][j]), which is −BWT",
    source="LB-CL and others, where only the first score of a task is known; Avalanche",
)
def _forgetting_first(m: ScoreMatrix, _: References) -> Cell:
    return _scaled(scores.backward_transfer(m), -1.0)


@metric("learning_accuracy", of="matrix", formula="(1/T) Σ_j a[j][j]", source="Riemer et al. 2019")
def _learning_accuracy(m: ScoreMatrix, _: References) -> Cell:
    return scores.learning_accuracy(m)


@metric(
    "average_incremental",
    of="matrix",
    formula="(1/T) Σ_i (1/i) Σ_{j≤i} a[i][j]: the area under the accuracy curve",
    source="Rebuffi et al. 2017 (iCaRL); vision splits",
)
def _average_incremental(m: ScoreMatrix, _: References) -> Cell:
    return scores.mean(_curve(m))


@metric(
    "fwt_base",
    of="matrix",
    formula="(1/(T−1)) Σ_{j≥2} (a[j−1][j] − b[j])",
    source="EasyCL; Lopez-Paz and Ranzato 2017, eq. 4, with the base model as the start",
    needs="base",
)
def _fwt_base(m: ScoreMatrix, references: References) -> Cell:
    return _forward(m, references.base)


@metric(
    "fwt_chance",
    of="matrix",
    formula="(1/(T−1)) Σ_{j≥2} (a[j−1][j] − c[j])",
    source="Lopez-Paz and Ranzato 2017, eq. 4, where a model at random guesses",
    needs="chance",
)
def _fwt_chance(m: ScoreMatrix, references: References) -> Cell:
    return _forward(m, references.chance)


@metric(
    "fwt_single",
    of="matrix",
    formula="(1/T) Σ_j (a[j][j] − s[j])",
    source="SAPT and others: learning after other tasks against learning alone",
    needs="single",
)
def _fwt_single(m: ScoreMatrix, references: References) -> Cell:
    return _against(m, references.single)


@metric(
    "intransigence",
    of="matrix",
    formula="(1/T) Σ_j (s[j] − a[j][j])",
    source="Chaudhry et al. 2018, eq. 4, averaged over tasks, with the task alone as the reference",
    needs="single",
)
def _intransigence(m: ScoreMatrix, references: References) -> Cell:
    return _scaled(_against(m, references.single), -1.0)


@metric(
    "general_delta",
    of="matrix",
    formula="(1/K) Σ_k (g[T][k] − g[0][k])",
    source="TRACE (Wang et al. 2023), general ability delta, on the benchmarks of general ability at hand",
    needs="general",
)
def _general_delta(m: ScoreMatrix, references: References) -> Cell:
    if references.general is None:
        return None
    before, after = references.general
    names = [name for name in before if name != PERPLEXITY]
    return scores.mean([scores.minus(after.get(name), before[name]) for name in names])


@metric(
    "perplexity_growth",
    of="matrix",
    formula="100 (PPL[T] / PPL[0] − 1)",
    source="ours; perplexity per token of text that no task has",
    needs="general",
)
def _perplexity_growth(m: ScoreMatrix, references: References) -> Cell:
    if references.general is None:
        return None
    before, after = (measures.get(PERPLEXITY) for measures in references.general)
    return None if before is None or after is None else 100 * (after / before - 1)


def measured(matrix: ScoreMatrix, references: References) -> dict[str, Cell]:
    """Compute every metric, by id; None where a cell or a reference that it needs was not measured."""
    return {id: known(matrix, references) for id, known in matrix_metrics().items()}
