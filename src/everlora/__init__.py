"""Fine-tunes for life and forgets nothing: continual learning with LoRA."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlora.benchmarks import benchmark as benchmark
    from everlora.benchmarks import load_known as load_known
    from everlora.benchmarks import open_stream as open_stream
    from everlora.core.errors import EverloraError as EverloraError
    from everlora.core.expressions import parse as parse
    from everlora.core.method import Method as Method
    from everlora.core.method import compose as compose
    from everlora.core.registry import method as method
    from everlora.data.stream import TaskStream as TaskStream
    from everlora.data.task import Example as Example
    from everlora.data.task import Task as Task
    from everlora.data.tasks import task_from_dataset as task
    from everlora.learner.learner import Learner as Learner
    from everlora.metrics import metric as metric
    from everlora.metrics.scores import ScoreMatrix as ScoreMatrix
    from everlora.metrics.texts import normalise as normalise
    from everlora.models.loading import load as load

__version__ = "0.1.0"

_HOMES = {
    "EverloraError": "core.errors",
    "Example": "data.task",
    "Learner": "learner.learner",
    "Method": "core.method",
    "ScoreMatrix": "metrics.scores",
    "Task": "data.task",
    "TaskStream": "data.stream",
    "benchmark": "benchmarks",
    "compose": "core.method",
    "load": "models.loading",
    "load_known": "benchmarks",
    "method": "core.registry",
    "metric": "metrics",
    "normalise": "metrics.texts",
    "open_stream": "benchmarks",
    "parse": "core.expressions",
    "task": "data.tasks:task_from_dataset",
}
"""Where each public name is defined; it is imported when it is first used, so that importing everlora is quick."""
__all__ = [
    "EverloraError",
    "Example",
    "Learner",
    "Method",
    "ScoreMatrix",
    "Task",
    "TaskStream",
    "benchmark",
    "compose",
    "load",
    "load_known",
    "method",
    "metric",
    "normalise",
    "open_stream",
    "parse",
    "task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, known_as = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(f"{__name__}.{home}"), known_as or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
