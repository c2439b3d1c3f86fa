"""Writes numbers of bytes as a person reads them."""

from __future__ import annotations


def size(count: float) -> str:
    """Write a number of bytes.

    >>> size(900), size(393_216), size(12_500_000), size(3.2e9), size(64e9)
    ('900 B', '393 kB', '12.5 MB', '3.20 GB', '64 GB')
    """
    for unit, limit in (("B", 1e3), ("kB", 1e6), ("MB", 1e9)):
        if count < limit:
            value = count / limit * 1e3
            return f"{value:.0f} {unit}" if unit != "MB" or value >= 100 else f"{value:.1f} {unit}"
    return f"{count / 1e9:.2f} GB" if count < 10e9 else f"{count / 1e9:,.0f} GB"
