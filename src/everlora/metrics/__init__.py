"""Registers all metrics: those of the answers to a task, and those of the accuracy matrix of a run.

predictions of a task ──metric of answers──> one cell a[i][j] of the matrix ──metric of the matrix──> one number
"""

from everlora.metrics import answers, matrix, trace
from everlora.metrics.registry import (
    METRICS,
    Answer,
    AnswerMetric,
    MatrixMetric,
    References,
    answer_metric,
    answer_metrics,
    matrix_metrics,
    metric,
)
from everlora.metrics.scores import Cell, ScoreMatrix

__all__ = [
    "METRICS",
    "Answer",
    "AnswerMetric",
    "Cell",
    "MatrixMetric",
    "References",
    "ScoreMatrix",
    "answer_metric",
    "answer_metrics",
    "answers",
    "matrix",
    "matrix_metrics",
    "metric",
    "trace",
]
