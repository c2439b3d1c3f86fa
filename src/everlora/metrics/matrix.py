"""Every number that is made of an accuracy matrix, with its id, its formula and where it comes from.

One name, one meaning: papers of this field write BWT for five different numbers, so each of them has an id of its own
here. A metric is a pure function of the matrix, and where it says so of reference scores measured beside it. What
needs a cell that was not measured is None.

    a[i][j]   percent on task j after learning task i, both from 1; T tasks, n_j test rows
    b[j]      percent of the base model on task j, before anything was learned
    c[j]      percent of guessing on task j
    s[j]      percent on task j of a model that learned it alone
    g[i][k]   percent on benchmark k of general ability after task i, before the first where i = 0; PPL[i] perplexity
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from everlora.metrics import scores
from everlora.metrics.scores import Cell, ScoreMatrix

Reference = Literal["base", "chance", "single", "general"]


@dataclass(frozen=True, kw_only=True)
class References:
    """Scores beside the matrix, one per task in its order; None where they were not measured.

    Attributes:
        base: of the model before anything was learned.
        chance: of guessing.
        single: of a model that learned the task alone.
        general: measures of general ability by id, before the first task and after the last.
    """

    base: Sequence[Cell] | None = None
    chance: Sequence[Cell] | None = None
    single: Sequence[Cell] | None = None
    general: tuple[Mapping[str, float], Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number with one meaning.

    Attributes:
        id: what results files and tables call it.
        formula: how it is made.
        source: who defined it, or uses it so.
        better: which direction is an improvement; None where neither is one by itself.
        needs: the reference scores that it is made with.
    """

    id: str
    formula: str
    source: str
    better: Literal["higher", "lower"] | None
    of: Callable[[ScoreMatrix, References], Cell]
    needs: Reference | None = None

    def __call__(self, matrix: ScoreMatrix, beside: References | None = None) -> Cell:
        """Its value in percent (points), or None where it is undefined."""
        return self.of(matrix, beside or References())


def _per_task(m: ScoreMatrix, drop: Callable[[int], Cell]) -> Cell:
    """Σ over the T − 1 earlier tasks by T, as SAPT and GainLoRA divide."""
    return _scaled(scores.mean([drop(j) for j in range(len(m.tasks) - 1)]), (len(m.tasks) - 1) / len(m.tasks))


def _scaled(value: Cell, factor: float) -> Cell:
    return None if value is None else value * factor


def _change(m: ScoreMatrix, j: int) -> Cell:
    return scores.minus(m.final[j], m.cells[j][j])


def _all_pairs(m: ScoreMatrix) -> Cell:
    return scores.mean([scores.minus(m.cells[i][j], m.cells[j][j]) for i in range(len(m.tasks)) for j in range(i)])


def _relative(m: ScoreMatrix) -> Cell:
    parts: list[Cell] = []
    for j in range(len(m.tasks) - 1):
        change, then = _change(m, j), m.cells[j][j]
        parts.append(None if change is None or not then else 100 * change / then)
    return scores.mean(parts)


def _weighted_bwt(m: ScoreMatrix) -> Cell:
    return scores.mean([_change(m, j) for j in range(len(m.tasks) - 1)], m.counts[:-1])


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


SAPT_ALONE = 50.94
"""Percent that SAPT's code has for its tasks learned alone."""
PERPLEXITY = "perplexity"
"""The one measure of general ability that is no percentage."""


def _general(beside: References) -> Cell:
    if beside.general is None:
        return None
    before, after = beside.general
    names = [name for name in before if name != PERPLEXITY]
    return scores.mean([scores.minus(after.get(name), before[name]) for name in names])


def _growth(beside: References) -> Cell:
    if beside.general is None:
        return None
    before, after = (measures.get(PERPLEXITY) for measures in beside.general)
    return None if before is None or after is None else 100 * (after / before - 1)


REGISTRY: dict[str, Metric] = {
    metric.id: metric
    for metric in (
        Metric(
            id="oa",
            formula="(1/T) Σ_j a[T][j]; also called AA, ACC, Last",
            source="ELLA, Evaluations; macro average, confirmed by the authors of O-LoRA",
            better="higher",
            of=lambda m, _: scores.overall_accuracy(m),
        ),
        Metric(
            id="oa_weighted",
            formula="Σ_j n_j a[T][j] / Σ_j n_j",
            source="the one number that O-LoRA's code prints",
            better="higher",
            of=lambda m, _: scores.weighted_accuracy(m),
        ),
        Metric(
            id="bwt",
            formula="(1/(T−1)) Σ_{j<T} (a[T][j] − a[j][j])",
            source="Lopez-Paz and Ranzato 2017, eq. 3; ELLA, Evaluations",
            better="higher",
            of=lambda m, _: scores.backward_transfer(m),
        ),
        Metric(
            id="bwt_over_t",
            formula="(1/T) Σ_{j<T} (a[T][j] − a[j][j])",
            source="code of SAPT and GainLoRA",
            better="higher",
            of=lambda m, _: _per_task(m, lambda j: _change(m, j)),
        ),
        Metric(
            id="bwt_all_pairs",
            formula="(2/(T(T−1))) Σ_{i>j} (a[i][j] − a[j][j])",
            source="Díaz-Rodríguez et al. 2018, Don't forget, there is more than forgetting",
            better="higher",
            of=lambda m, _: _all_pairs(m),
        ),
        Metric(
            id="bwt_relative",
            formula="(100/(T−1)) Σ_{j<T} (a[T][j] − a[j][j]) / a[j][j]",
            source="used where tasks have scores of different size; undefined where a task was not learned at all",
            better="higher",
            of=lambda m, _: _relative(m),
        ),
        Metric(
            id="bwt_weighted",
            formula="Σ_{j<T} n_j (a[T][j] − a[j][j]) / Σ_{j<T} n_j",
            source="what the pooled test rows of O-LoRA's code come to",
            better="higher",
            of=lambda m, _: _weighted_bwt(m),
        ),
        Metric(
            id="forgetting",
            formula="(1/(T−1)) Σ_{j<T} (max_{j≤l<T} a[l][j] − a[T][j])",
            source="Chaudhry et al. 2018, eq. 3",
            better="lower",
            of=lambda m, _: scores.forgetting(m),
        ),
        Metric(
            id="forgetting_first",
            formula="(1/(T−1)) Σ_{j<T} (a[j][j] − a[T][j]), which is −BWT",
            source="LB-CL and others, where only the first score of a task is known",
            better="lower",
            of=lambda m, _: _scaled(scores.backward_transfer(m), -1.0),
        ),
        Metric(
            id="learning_accuracy",
            formula="(1/T) Σ_j a[j][j]",
            source="Riemer et al. 2019",
            better="higher",
            of=lambda m, _: scores.learning_accuracy(m),
        ),
        Metric(
            id="average_incremental",
            formula="(1/T) Σ_i (1/i) Σ_{j≤i} a[i][j]: the area under the accuracy curve",
            source="Rebuffi et al. 2017 (iCaRL); vision splits",
            better="higher",
            of=lambda m, _: scores.mean(_curve(m)),
        ),
        Metric(
            id="fwt_base",
            formula="(1/(T−1)) Σ_{j≥2} (a[j−1][j] − b[j])",
            source="EasyCL; Lopez-Paz and Ranzato 2017, eq. 4, with the base model as the start",
            better="higher",
            of=lambda m, beside: _forward(m, beside.base),
            needs="base",
        ),
        Metric(
            id="fwt_chance",
            formula="(1/(T−1)) Σ_{j≥2} (a[j−1][j] − c[j])",
            source="Lopez-Paz and Ranzato 2017, eq. 4, where a model at random guesses",
            better="higher",
            of=lambda m, beside: _forward(m, beside.chance),
            needs="chance",
        ),
        Metric(
            id="fwt_single",
            formula="(1/T) Σ_j (a[j][j] − s[j])",
            source="SAPT and others: learning after other tasks against learning alone",
            better="higher",
            of=lambda m, beside: _against(m, beside.single),
            needs="single",
        ),
        Metric(
            id="fwt_constant",
            formula=f"(1/T) Σ_j a[j][j] − {SAPT_ALONE}",
            source="code of SAPT, whose constant is of its own models and data and says nothing of others; GainLoRA's "
            "code takes 0 off, which is learning_accuracy",
            better="higher",
            of=lambda m, _: scores.minus(scores.learning_accuracy(m), SAPT_ALONE),
        ),
        Metric(
            id="intransigence",
            formula="(1/T) Σ_j (s[j] − a[j][j])",
            source="Chaudhry et al. 2018, eq. 4, averaged over tasks, with the task alone as the reference",
            better="lower",
            of=lambda m, beside: _scaled(_against(m, beside.single), -1.0),
            needs="single",
        ),
        Metric(
            id="general_delta",
            formula="(1/K) Σ_k (g[T][k] − g[0][k])",
            source="TRACE (Wang et al. 2023), general ability delta, on the benchmarks of general ability at hand",
            better="higher",
            of=lambda m, beside: _general(beside),
            needs="general",
        ),
        Metric(
            id="perplexity_growth",
            formula="100 (PPL[T] / PPL[0] − 1)",
            source="ours; perplexity per token of text that no task has",
            better="lower",
            of=lambda m, beside: _growth(beside),
            needs="general",
        ),
    )
}


def measured(matrix: ScoreMatrix, beside: References) -> dict[str, Cell]:
    """Every metric by id; None where a cell or a reference that it needs was not measured."""
    return {name: metric(matrix, beside) for name, metric in REGISTRY.items()}
