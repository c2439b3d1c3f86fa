"""Defines the columns that a table of methods may have, and what each shows of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from everlora.analysis.compare import Interval
    from everlora.analysis.comparison import Comparison, Row, Section

HEADS = {"oa": "OA", "bwt": "BWT", "forgetting": "forgetting", "learning_accuracy": "learning accuracy"}
DEFAULT = ("runs", *HEADS, "difference", "p", "seen")
"""The columns of a table that nobody has chosen."""
KNOWN = (*DEFAULT, "orders", "tasks")
"""All that can be chosen; the last two stand for a column each."""
COLUMNS_HELP = f"Columns of the table: {', '.join(KNOWN)}."
Value = str | float | None


@dataclass(frozen=True)
class Column:
    """Holds a column.

    Attributes:
        head: its heading.
        name: the same for a program that reads it.
        show: what it shows of a row of a section.
        values: the same as numbers, with what they are: the mean and the ends of its interval, say.
        of_best: whether rows that nothing tells from the best are marked in it.
    """

    head: str
    name: str
    show: Callable[[Row, Section], str]
    values: Callable[[Row], dict[str, Value]]
    of_best: bool = False


def chosen(words: str | None) -> tuple[str, ...] | None:
    """Read a list of columns; None where none is given.

    Raises:
        ConfigError: one of them is not known.
    """
    if words is None:
        return None
    names = tuple(word for word in words.replace(",", " ").split())
    for name in names:
        if name not in KNOWN:
            raise ConfigError(f"unknown column {name!r}{nearest(name, KNOWN)}")
    if not names:
        raise ConfigError(f"--columns names none; known: {', '.join(KNOWN)}")
    return names


def columns(table: Comparison, names: Sequence[str] = DEFAULT) -> list[Column]:
    """Return the columns of a table, in order; those by which its runs were made follow where rows differ in them."""
    found: list[Column] = []
    for name in names:
        found += _named(table, name)
    return found + [_made(name, of) for name, of in several(table).items()]


def _named(table: Comparison, name: str) -> list[Column]:
    """Return the column of a name, or those that it stands for."""
    if name in HEADS:
        return [_of_metric(name, of_best=name == table.metric)]
    if name == "orders":
        return [_mean_of(lambda row: row.by_order, order, head) for order, head in order_heads(table).items()]
    if name == "tasks":
        tasks = dict.fromkeys(task for row in all_rows(table) for task in row.by_task)
        return [_mean_of(lambda row: row.by_task, task, task) for task in tasks]
    if name == "difference":
        return [_of_difference(table.baseline)]
    return [SIMPLE[name]]


def _of_metric(name: str, *, of_best: bool) -> Column:
    def show(row: Row, _: Section) -> str:
        return cell(row.metrics[name])

    return Column(HEADS[name], name, show, lambda row: _parts(name, row.metrics[name]), of_best=of_best)


def _of_difference(baseline: str | None) -> Column:
    def show(row: Row, section: Section) -> str:
        return _difference(row, section.reference, baseline)

    head = f"OA − {baseline or 'best'}"
    return Column(head, "difference", show, lambda row: _parts("difference", row.difference))


def _mean_of(means: Callable[[Row], Mapping[str, float]], key: str, head: str) -> Column:
    def show(row: Row, _: Section) -> str:
        return one_digit(means(row).get(key))

    return Column(head, head, show, lambda row: {head: means(row).get(key)})


def _made(name: str, of: Callable[[Row], Sequence[str]]) -> Column:
    return Column(name, name, lambda row, _: " ".join(of(row)), lambda row: {name: " ".join(of(row))})


def order_heads(table: Comparison) -> dict[str, str]:
    """Return the headings of the columns of orders, by the tasks of each, which are too long for one."""
    orders = sorted({order for row in all_rows(table) for order in row.by_order})
    return {order: f"order {_letters(k)}" for k, order in enumerate(orders)}


def _letters(number: int) -> str:
    more, last = divmod(number, len(ascii_uppercase))
    return (_letters(more - 1) if more else "") + ascii_uppercase[last]


def _parts(name: str, found: Interval | None) -> dict[str, Value]:
    values = astuple(found) if found else (None,) * 3
    return {f"{name}_{part}": value for part, value in zip(("mean", "low", "high"), values, strict=True)}


def one_digit(value: float | None) -> str:
    """Return a number with one digit; a dash for none."""
    return "–" if value is None else f"{value:.1f}"


def cell(interval: Interval | None) -> str:
    """Return a mean and its interval."""
    if interval is None:
        return "–"
    mean, low, high = (
        f"{round(value, 1) + 0.0:.1f}" for value in (interval.mean, interval.low, interval.high)
    )  # no −0.0
    return f"{mean} [{low}, {high}]".replace("-", "−")


def _difference(row: Row, reference: str | None, baseline: str | None) -> str:
    if row.method == reference:
        return "baseline" if baseline else "best"
    if row.difference is None:
        return "–"
    few = f" over {row.common}" if row.common is not None and row.common < row.runs else ""
    return ("≈ " if row.alike else "") + cell(row.difference) + few


def _p(row: Row) -> str:
    if row.p_corrected is None:
        return "–"
    shown = "<0.001" if row.p_corrected < 0.001 else f"{row.p_corrected:.3f}"
    return shown + (" (rows)" if row.test == "rows" else "")


def all_rows(table: Comparison) -> list[Row]:
    """Return the rows of all sections."""
    return [row for section in table.sections for row in section.rows]


def several(table: Comparison) -> dict[str, Callable[[Row], Sequence[str]]]:
    """Return what rows differ in of how they were made, and so must say each by itself: protocol, fingerprint."""
    made: dict[str, Callable[[Row], Sequence[str]]] = {
        "protocol": lambda row: row.protocols,
        "fingerprint": lambda row: row.fingerprints,
    }
    return {name: of for name, of in made.items() if len({one for row in all_rows(table) for one in of(row)}) > 1}


def among_best(row: Row, section: Section, table: Comparison) -> bool:
    """Return whether nothing tells a method from the best of its section, of which there are others."""
    return table.baseline is None and section.reference is not None and row.alike is True and len(section.rows) > 1


SIMPLE = {
    "runs": Column("runs", "runs", lambda row, _: str(row.runs), lambda row: {"runs": row.runs}),
    "p": Column("p", "p", lambda row, _: _p(row), lambda row: {"p_corrected": row.p_corrected}),
    "seen": Column("seen", "seen", lambda row, _: one_digit(row.detectable), lambda row: {"seen": row.detectable}),
}
"""Columns that are the same in every table."""
