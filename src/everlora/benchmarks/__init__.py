"""Streams of tasks: the built-in ones, the published benchmarks, and a user's own files."""

from everlora.benchmarks.registry import (
    BenchmarkInfo,
    benchmarks,
    find_benchmark,
    open_stream,
    order_number,
    settled_order,
)
from everlora.data.files import stream_from_yaml
from everlora.data.tasks import task_from_dataset

__all__ = [
    "BenchmarkInfo",
    "benchmarks",
    "find_benchmark",
    "open_stream",
    "order_number",
    "settled_order",
    "stream_from_yaml",
    "task_from_dataset",
]
