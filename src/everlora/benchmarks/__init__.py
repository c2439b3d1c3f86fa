"""Defines benchmarks, known streams of tasks: each is a YAML file here, with a loader where one is needed.

    trace.yaml   what is known: title, orders, tasks with labels, metric, source, licence   read for every listing
    folders.py   the loader that it names, which reads the rows                             imported when it is opened

Nothing that is imported here reads rows or imports torch, so that a listing is quick.
"""

from everlora.benchmarks.facts import benchmark
from everlora.benchmarks.read import read_benchmark
from everlora.benchmarks.streams import (
    benchmarks,
    find_benchmark,
    is_own,
    load_known,
    open_stream,
    order_number,
)
from everlora.core.benchmark import Benchmark, Request, TaskInfo

__all__ = [
    "Benchmark",
    "Request",
    "TaskInfo",
    "benchmark",
    "benchmarks",
    "find_benchmark",
    "is_own",
    "load_known",
    "open_stream",
    "order_number",
    "read_benchmark",
]
