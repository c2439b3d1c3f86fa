"""Other names of task orders. An order is its list and the hash of the stream; numbers are labels that papers give.

Papers agree on orders 1 to 6 (O-LoRA, MIGU, DATA, N-LoRA, EasyCL, Recurrent-KIF), except that SAPT's and GainLoRA's
scripts count on from the two SuperNI orders.
"""

from __future__ import annotations

from collections.abc import Mapping

from everlora.core.errors import ConfigError, nearest

_AGREEING = ("o-lora", "migu", "data", "n-lora", "kif")

ALIASES: Mapping[str, Mapping[str, int]] = {
    "standard": {
        **{f"{paper}-{number}": number for paper in _AGREEING for number in (1, 2, 3)},
        **{f"lfpt5-order{number}": number for number in (1, 2, 3)},  # EasyCL's name of the benchmark
    },
    "long": {
        **{f"{paper}-{number}": number for paper in _AGREEING for number in (4, 5, 6)},
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
    plain = order.lower().replace("_", "-")
    if plain not in known:
        hint = nearest(order, known) if known else "; give a number"
        raise ConfigError(f"{benchmark} has no order {order!r}{hint}")
    return known[plain]
