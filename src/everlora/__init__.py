"""everlora: fine-tune for life, forget nothing."""

from everlora.benchmarks import benchmark, benchmarks, open_stream
from everlora.core.errors import EverloraError
from everlora.core.expressions import parse
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.data.task import Example, Task, TaskStream
from everlora.data.tasks import task_from_dataset as task
from everlora.learner.learner import Learner
from everlora.metrics import metric
from everlora.metrics.scores import ScoreMatrix, metrics
from everlora.models.loading import load

__all__ = [
    "EverloraError",
    "Example",
    "Learner",
    "Method",
    "ScoreMatrix",
    "Task",
    "TaskStream",
    "benchmark",
    "benchmarks",
    "compose",
    "load",
    "method",
    "metric",
    "metrics",
    "open_stream",
    "parse",
    "task",
]
__version__ = "0.1.0"
