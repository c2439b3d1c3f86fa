"""Registers metrics by name: what a metric of answers and a metric of the matrix are, and how one adds its own.

    from everlora import metric

    @metric("starts_right", formula="100 where answer and target begin alike", source="an example")
    def starts_right(answer):
        return 100.0 * any(answer.prediction[:1] == right[:1] for right in answer.accepted)

One name, one meaning: papers of this field call different numbers by one name, so every variant has an id of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from everlora.core.errors import ConfigError, DataError, EverloraError, nearest
from everlora.core.registry import Registry
from everlora.metrics.scores import Cell, ScoreMatrix

Reference = Literal["base", "chance", "single", "general"]
Kind = Literal["answers", "matrix"]
ROUNDING = 1e-6
"""Points by which a percentage may lie beyond 0 or 100."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds one answer together with what it is compared with.

    Attributes:
        prediction: what the model answered, without white space around it unless the metric counts blanks.
        accepted: the right answers, at least one; the first is the one that was learned.
        source: the text of the question.
    """

    prediction: str
    accepted: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerMetric:
    """Scores the answers to one task, in percent from 0 to 100.

    Attributes:
        id: what a task and a results file call it.
        formula: how it is made.
        source: who defined it, or uses it so.
        row: its value for one row.
        corpus: its value for all rows and the label set, where that is not the mean over rows.
        shares: then what each row adds to it, with it as their mean, see `everlora.metrics.row_shares`.
        aliases: other names under which it is found.
        blanks: whether it is given answers with the white space around them.
    """

    id: str
    formula: str
    source: str
    row: Callable[[Answer], float]
    needs: ClassVar[Reference | None] = None
    """A metric of answers is made without reference scores."""
    corpus: Callable[[Sequence[Answer], Sequence[str]], float] | None = None
    shares: Callable[[Sequence[Answer], Sequence[str]], tuple[float, ...]] | None = None
    aliases: tuple[str, ...] = ()
    blanks: bool = False

    def score(self, rows: Sequence[Answer], labels: Sequence[str] = ()) -> tuple[float, tuple[float, ...]]:
        """Score all rows of a task.

        Returns:
            The score of the task, and the value of each row by itself.

        Raises:
            DataError: there are no rows, of which no metric is defined, or a metric of one's own fails or gives no
                percentage.

        >>> from everlora.metrics import answer_metric
        >>> right, wrong = Answer("Sports.", ("sports",)), Answer("news", ("sports",))
        >>> answer_metric("exact_match").score([right, wrong])
        (50.0, (100.0, 0.0))
        """
        if not rows:
            raise DataError(f"the metric {self.id!r} is not defined without any rows; score at least one")
        each = tuple(self.of_row(row) for row in rows)
        if self.corpus is None:
            return sum(each) / len(each), each
        return _percentage(self.id, _called(self.id, self.corpus, rows, labels)), each

    def of_row(self, row: Answer) -> float:
        """Score one row.

        Raises:
            DataError: a metric of one's own fails, or gives what is no percentage.
        """
        return _percentage(self.id, _called(self.id, self.row, row))

    def shares_of(self, rows: Sequence[Answer], labels: Sequence[str]) -> tuple[float, ...]:
        """Return what each row adds to ``corpus``; nothing where the score is the mean over rows.

        Raises:
            DataError: a metric of one's own fails, or does not give a number for each row.
        """
        if self.shares is None:
            return ()
        found = tuple(_called(self.id, self.shares, rows, labels))
        if len(found) != len(rows) or not all(map(_is_number, found)):
            raise DataError(
                f"the shares of the metric {self.id!r} must be one number for each of the {len(rows)} rows"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class References:
    """Holds scores that the matrix is compared with, one per task in its order; None where not measured.

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
class MatrixMetric:
    """Computes one number of an accuracy matrix, in percent (points).

    Attributes:
        id: what results files and tables call it.
        formula: how it is made.
        source: who defined it, or uses it so.
        of: the function of the matrix and the reference scores; None where it is undefined.
        needs: the reference scores that it is made with.
        aliases: other names under which it is found.
    """

    id: str
    formula: str
    source: str
    of: Callable[[ScoreMatrix, References], Cell]
    needs: Reference | None = None
    aliases: tuple[str, ...] = ()

    def __call__(self, matrix: ScoreMatrix, references: References | None = None) -> Cell:
        """Compute the number; None where a cell or a reference that it needs was not measured.

        >>> from everlora.metrics import matrix_metrics
        >>> matrix = ScoreMatrix(("a", "b"), (10, 10), ((90, None), (70, 80)))
        >>> matrix_metrics()["bwt"](matrix)
        -20.0
        """
        found: Cell = _called(self.id, self.of, matrix, references or References())
        if found is not None and not _is_number(found):
            raise DataError(f"the metric {self.id!r} gives {_shown(found)}, which is no number; it may give None")
        return found


def _called(id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a metric; where one from outside fails, say so in one line."""
    try:
        return function(*arguments)
    except EverloraError:
        raise
    except Exception as error:
        if id not in METRICS.from_outside():
            raise
        raise DataError(
            f"the metric {id!r} fails: {type(error).__name__}: {error}; mend it, or choose another"
        ) from error


def _percentage(id: str, value: Any) -> float:
    """Refuse what is no percentage; rounding may carry one a little beyond its ends."""
    if not _is_number(value) or not -ROUNDING <= value <= 100 + ROUNDING:
        raise DataError(f"the metric {id!r} gives {_shown(value)}, which is no percentage from 0 to 100; mend it")
    return cast(float, value)


def _is_number(value: Any) -> bool:
    # True would be 1 %.
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, Real) else f"a {type(value).__name__}"


METRICS: Registry[AnswerMetric | MatrixMetric] = Registry("metric", own="everlora.metrics")
"""All metrics, of answers and of the matrix."""


def metric(
    id: str,
    *,
    formula: str,
    source: str,
    of: Kind = "answers",
    aliases: tuple[str, ...] = (),
    corpus: Callable[[Sequence[Answer], Sequence[str]], float] | None = None,
    shares: Callable[[Sequence[Answer], Sequence[str]], tuple[float, ...]] | None = None,
    needs: Reference | None = None,
    blanks: bool = False,
) -> Callable[[F], F]:
    """Register the decorated function as a metric.

    >>> from everlora.core.registry import isolated
    >>> with isolated():  # forgets it again, as tests do
    ...     @metric("begins_right", formula="100 if the answer begins with a right one, else 0", source="an example")
    ...     def begins_right(row: Answer) -> float:
    ...         return 100.0 * row.prediction.startswith(row.accepted)
    ...     answer_metric("begins-right").score([Answer("yes, I do", ("yes",)), Answer("no", ("yes",))])
    (50.0, (100.0, 0.0))

    Args:
        id: its name in tasks, tables and files.
        formula: how it is made, in one line.
        source: who defined it, or uses it so.
        of: whether the function takes one `Answer` and returns its percentage (``answers``), or takes a `ScoreMatrix`
            and `References` and returns a number or None (``matrix``).
        aliases: other names under which it is found.
        corpus: the score of a task, from its answers and labels, where that is not the mean over rows.
        shares: what each row adds to ``corpus``; their mean must be the score.
        needs: the reference scores that a metric of the matrix is made with.
        blanks: whether a metric of answers is given them with the white space around them.

    Raises:
        ConfigError: the name is taken, an option belongs to the other kind of metric, or has no such value.
    """
    for option, value, known in (("of", of, get_args(Kind)), ("needs", needs, get_args(Reference))):
        if value not in (None, *known):
            raise ConfigError(f"the metric {id!r} cannot have {option}={value!r}{nearest(str(value), known)}")
    if (of == "matrix" and (corpus or shares or blanks)) or (of == "answers" and needs):
        wrong = "corpus and shares belong to metrics of answers" if of == "matrix" else "needs belongs to the matrix"
        raise ConfigError(f"the metric {id!r} is of the {of}; {wrong}")
    if (corpus is None) != (shares is None):
        raise ConfigError(f"the metric {id!r} must give both corpus and shares, or neither, so that rows can be drawn")

    def register(function: F) -> F:
        made: AnswerMetric | MatrixMetric
        if of == "matrix":
            made = MatrixMetric(id=id, formula=formula, source=source, of=function, needs=needs, aliases=aliases)
        else:
            made = AnswerMetric(id=id, formula=formula, source=source, row=function, aliases=aliases, blanks=blanks)
            made = replace(made, corpus=corpus, shares=shares)
        METRICS.add(id, made, module=function.__module__, aliases=aliases)
        return function

    return register


def answer_metrics() -> dict[str, AnswerMetric]:
    """List the metrics of answers by id."""
    return {id: known for id, known in METRICS.all().items() if isinstance(known, AnswerMetric)}


def matrix_metrics() -> dict[str, MatrixMetric]:
    """List the metrics of the accuracy matrix by id."""
    return {id: known for id, known in METRICS.all().items() if isinstance(known, MatrixMetric)}


def answer_metric(name: str) -> AnswerMetric:
    """Look up a metric of answers by its id or an alias; case, dashes and underscores do not matter.

    Raises:
        ConfigError: there is none of that name; the message holds the nearest one.

    >>> answer_metric("ROUGE-L").id
    'rouge_l'
    """
    found = METRICS.find(name)
    if not isinstance(found, AnswerMetric):
        known = answer_metrics()
        raise ConfigError(f"unknown metric {name!r}{nearest(name, known)} (everlora metrics lists them)")
    return found
