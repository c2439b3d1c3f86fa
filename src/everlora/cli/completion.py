"""Offers the shell values while they are typed. Nothing heavy is imported, for the shell waits."""

from __future__ import annotations

from collections.abc import Callable

from everlora.core.expressions import declared_methods
from everlora.settings.setting import Known
from everlora.settings.spec import DTYPES

Complete = Callable[[str], list[str]]
OTHER_VALUES = {"dtype": DTYPES, "device": ("auto", "cpu", "cuda", "mps")}


def of(one: Known) -> Complete | None:
    """Return what completes the values of a setting; None where nothing is known of them."""
    if values := one.choices or OTHER_VALUES.get(one.path[-1]):
        return _among(values)
    known = {"method": methods, "model": models, "benchmark": benchmarks, "protocol": protocols, "metric": metrics}
    return known.get(one.path[-1])


def _among(values: tuple[str, ...]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def methods(incomplete: str) -> list[str]:
    """Return names of methods; of a composition or a list, for its last term."""
    at = max(incomplete.rfind("+"), incomplete.rfind(",")) + 1
    before, last = incomplete[:at], incomplete[at:]
    return [before + name for name in sorted(declared_methods()) if name.startswith(last)]


def models(incomplete: str) -> list[str]:
    """Return names of models that come with everlora."""
    from everlora.models.names import PACKAGED, TINY

    return [name for name in (*PACKAGED, *TINY) if name.startswith(incomplete)]


def benchmarks(incomplete: str) -> list[str]:
    """Return names of benchmarks."""
    from everlora.benchmarks import benchmarks

    return [info.name for info in benchmarks() if info.name.startswith(incomplete)]


def protocols(incomplete: str) -> list[str]:
    """Return names of packaged protocols."""
    from everlora.settings.protocol import known

    return [name for name in known() if name.startswith(incomplete)]


def metrics(incomplete: str) -> list[str]:
    """Return names of metrics of answers."""
    from everlora.metrics import answer_metrics

    return [name for name in answer_metrics() if name.startswith(incomplete)]
