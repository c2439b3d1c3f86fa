"""everlora: fine-tune for life, forget nothing."""

from everlora.benchmarks import benchmarks, open_stream
from everlora.benchmarks import task_from_dataset as task
from everlora.core.errors import EverloraError
from everlora.core.method import Method, compose
from everlora.core.registry import method, parse
from everlora.data.task import Example, Task, TaskStream
from everlora.learner.learner import Learner
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
    "benchmarks",
    "compose",
    "load",
    "method",
    "metrics",
    "open_stream",
    "parse",
    "task",
]
__version__ = "0.1.0"
