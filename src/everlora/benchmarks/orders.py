"""Other names of task orders. An order is its list and the hash of the stream; numbers are labels that papers give.

Papers agree on orders 1 to 6 (O-LoRA, MIGU, DATA, N-LoRA, Recurrent-KIF, LB-CL, ELLA), except that SAPT's and
GainLoRA's scripts count on from the two SuperNI orders, and EasyCL counts each of its benchmarks from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from everlora.core.errors import ConfigError, nearest

_AGREEING = ("o-lora", "migu", "data", "n-lora", "kif", "lb-cl", "ella")

ALIASES: Mapping[str, Mapping[str, int]] = {
    "standard": {
        **{f"{paper}-{number}": number for paper in _AGREEING for number in (1, 2, 3)},
        **{f"lfpt5-order{number}": number for number in (1, 2, 3)},  # EasyCL's name of the benchmark
    },
    "long": {
        **{f"{paper}-{number}": number for paper in _AGREEING for number in (4, 5, 6)},
        **{f"lnt-order{number - 3}": number for number in (4, 5, 6)},  # EasyCL's name of the benchmark
        **{"sapt-4": 6, "sapt-5": 4, "gainlora-3": 6, "gainlora-4": 4},
    },
    "trace": {"data-7": 7, "ella-7": 7},
    "superni": {f"{paper}-{number}": number for paper in ("sapt", "gainlora") for number in (1, 2)},
}


def number_of(benchmark: str, order: int | str) -> int:
    """The number of an order that is given by number or by an alias.

    Raises:
        ConfigError: the benchmark has no such alias.
    """
    if isinstance(order, int) or order.isdecimal():
        return int(order)
    known = ALIASES.get(benchmark, {})
    plain = {_plain(alias): number for alias, number in known.items()}
    if _plain(order) not in plain:
        hint = nearest(order, known) if known else "; give a number"
        raise ConfigError(f"{benchmark} has no order {order!r}{hint}")
    return plain[_plain(order)]


def _plain(alias: str) -> str:
    """DATA's ``order_6`` is ``data-6`` as well as ``data-order_6``."""
    return re.sub(r"[^a-z0-9]", "", alias.lower().replace("order", ""))
