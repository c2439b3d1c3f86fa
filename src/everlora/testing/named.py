"""Holds the tests of the methods that `pytest -p everlora.testing --everlora METHOD` names."""

import re

from everlora.testing.battery import battery
from everlora.testing.plugin import named

for _expression in named:
    globals()["test_" + re.sub(r"\W+", "_", _expression).strip("_")] = battery(_expression)
