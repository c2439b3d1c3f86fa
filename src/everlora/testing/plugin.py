"""Runs the battery as a pytest plugin: methods named on the command line are tested without a test file.

As in ``pytest -p everlora.testing --everlora my-method --everlora-plugin my_method.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import everlora.learner.experiment  # noqa: F401  (registers our methods first: their names are taken)
from everlora.core import plugins
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse

TESTS = Path(__file__).with_name("named.py")
named: list[str] = []
"""The methods that were named in this session, as expressions."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options to pytest's own."""
    group = parser.getgroup("everlora")
    group.addoption("--everlora", action="append", default=[], metavar="METHOD", help="run the battery for a method")
    group.addoption(
        "--everlora-plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="Python file with a method of your own; its code is run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Run the plug-in files, and test the methods: with the paths that were given, else alone."""
    try:
        for file in config.getoption("--everlora-plugin"):
            plugins.load(Path(file))
        named[:] = config.getoption("--everlora")
        for expression in named:
            parse(expression)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    if named:
        given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*given, str(TESTS)]
