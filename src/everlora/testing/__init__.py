"""The battery that every method of ours goes through, for methods of a user's own.

In a test file:

    import my_method  # registers "my-method"
    from everlora.testing import battery

    test_my_method = battery("my-method")

which pytest runs once per check and model family. It is a pytest plugin, too, which needs no test file:

    pytest -p everlora.testing --everlora my-method --everlora-plugin my_method.py

Needs pytest; nothing inside everlora needs this package.
"""

import pytest

pytest.register_assert_rewrite("everlora.testing.checks")

from everlora.testing.battery import battery  # noqa: E402
from everlora.testing.checks import CHECKS, Case  # noqa: E402
from everlora.testing.plugin import pytest_addoption, pytest_configure  # noqa: E402
from everlora.testing.record import Record, live_once  # noqa: E402

__all__ = ["CHECKS", "Case", "Record", "battery", "live_once", "pytest_addoption", "pytest_configure"]
