"""everlora: fine-tune for life, forget nothing."""

from everlora.core.errors import EverloraError
from everlora.core.method import Method, compose
from everlora.core.registry import method, parse
from everlora.core.scores import ScoreMatrix, metrics
from everlora.core.task import Example, Task, TaskStream
from everlora.engine.models import load
from everlora.learner import Learner
from everlora.streams import benchmarks, open_stream
from everlora.streams import task_from_dataset as task

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
