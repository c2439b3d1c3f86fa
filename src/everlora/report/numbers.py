"""Writes numbers as a page shows them: one minus sign, few digits, and a dash where nothing is known."""

from __future__ import annotations

from everlora.analysis.compare import Interval

NOTHING = "–"


def points(value: float | None, signed: bool = False) -> str:
    """Write percent or percentage points to one digit.

    >>> points(-0.04), points(-3.21), points(2.5, signed=True), points(None)
    ('0.0', '−3.2', '+2.5', '–')
    """
    if value is None:
        return NOTHING
    shown = f"{round(value, 1) + 0.0:{'+' if signed else ''}.1f}"
    return ("0.0" if shown in ("+0.0", "-0.0") else shown).replace("-", "−")


def interval(found: Interval | None) -> str:
    """Write the ends of an interval.

    >>> interval(Interval(1.0, -0.5, 2.5))
    '−0.5 to 2.5'
    """
    return "" if found is None else f"{points(found.low)} to {points(found.high)}"


def figure(value: float | None, digits: int = 3) -> str:
    """Write a number of any size to a few digits.

    >>> figure(0.001234), figure(12345.6), figure(None)
    ('0.00123', '12,300', '–')
    """
    if value is None or value != value:
        return NOTHING
    if abs(value) >= 10**digits:
        return f"{float(f'{value:.{digits}g}'):,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def duration(seconds: float) -> str:
    """Write a time.

    >>> duration(0.42), duration(75), duration(4000)
    ('0.4 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> counted(1, "task"), counted(12000, "row")
    ('1 task', '12,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
