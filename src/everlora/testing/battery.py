"""Makes one test per check and model family, for a method that is registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.registry import FAMILIES
from everlora.testing.checks import CHECKS, Case
from everlora.testing.record import Record, record_run
from everlora.testing.tiny_runs import MODELS


def battery(method: str, *, models: Sequence[str] | None = None, without: Sequence[str] = ()) -> Callable[..., None]:
    """Make a test function, to be given a name that begins with ``test``.

    >>> test_seqlora = battery("seqlora", models=["tiny-bert"], without=["a_new_adapter_changes_nothing"])
    >>> [parametrised] = test_seqlora.pytestmark
    >>> parametrised.args[1][0].values[0]
    'tiny-bert'

    Args:
        method: an expression; what registers its names must have been imported.
        models: tiny models; by default one of each family on which the method makes sense.
        without: names of checks (`everlora.testing.CHECKS`) that the method does not mean to pass.

    Raises:
        ConfigError: unknown method or check, or a form of adapter that these checks do not know.
    """
    composed = parse(method)
    if unknown := set(without) - set(CHECKS):
        raise ConfigError(f"no check is called {', '.join(sorted(unknown))}; known: {', '.join(CHECKS)}")
    if not composed.adapter.low_rank:
        raise ConfigError(f"the battery is for low-rank updates; {method!r} trains another form of adapter")
    fitting = [model for model, family in zip(MODELS, FAMILIES, strict=True) if family in composed.families]
    cases = [
        pytest.param(model, name, id=f"{model}-{name}")
        for model in models or fitting
        for name, check in CHECKS.items()
        if check.applies(composed) and name not in without
    ]

    @pytest.mark.parametrize(("model", "check"), cases)
    def test(model: str, check: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        torch.set_num_threads(1)  # bit for bit
        CHECKS[check].look(Case(method, model, _recorded(tmp_path_factory), tmp_path))

    test.__doc__ = f"The battery of everlora for {method}."
    return test


_records: dict[tuple[str, str, str], Record] = {}


def _recorded(folders: pytest.TempPathFactory) -> Callable[[str, str], Record]:
    """Run every (method, model) once per session."""

    def get(method: str, model: str) -> Record:
        known = (str(folders.getbasetemp()), method, model)
        if known not in _records:
            _records[known] = record_run(method, model, folders.mktemp("run") / "run")
        return _records[known]

    return get
