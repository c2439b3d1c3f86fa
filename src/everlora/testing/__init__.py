"""Offers the batteries that everlora's own methods, benchmarks and metrics go through, for those of a user's own.

In a test file:

    import mine  # registers "my-method", "my-three" and "token_f1"
    from everlora.testing import battery, benchmark_battery, metric_battery

    test_my_method = battery("my-method")
    test_my_three = benchmark_battery("my-three")
    test_token_f1 = metric_battery("token_f1")

which pytest runs once per check, and that of a method once per model family, too. For methods it is a pytest plugin as
well, which needs no test file:

    pytest -p everlora.testing --everlora my-method --everlora-plugin my_method.py

Needs pytest; nothing inside everlora needs this package.
"""

import pytest

pytest.register_assert_rewrite("everlora.testing.checks", "everlora.testing.benchmarks", "everlora.testing.metrics")

from everlora.testing.battery import battery  # noqa: E402
from everlora.testing.benchmarks import BENCHMARK_CHECKS, BenchmarkCase, benchmark_battery, made_up_rows  # noqa: E402
from everlora.testing.checks import CHECKS, Case  # noqa: E402
from everlora.testing.metrics import ANSWER_CHECKS, MATRIX_CHECKS, AnswerCase, metric_battery  # noqa: E402
from everlora.testing.plugin import pytest_addoption, pytest_configure  # noqa: E402
from everlora.testing.record import Record, record_run  # noqa: E402

__all__ = [
    "ANSWER_CHECKS",
    "BENCHMARK_CHECKS",
    "CHECKS",
    "MATRIX_CHECKS",
    "AnswerCase",
    "BenchmarkCase",
    "Case",
    "Record",
    "battery",
    "benchmark_battery",
    "made_up_rows",
    "metric_battery",
    "pytest_addoption",
    "pytest_configure",
    "record_run",
]
