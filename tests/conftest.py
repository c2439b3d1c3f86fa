"""Every (method, model) pair is run once per process and looked at by many tests."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("EVERLORA_REPORT", "0")  # a page takes a second, and hundreds of tests make runs
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels on any machine; Triton reads it when it is imported

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # the process that only hands out tests need not import what they test
    from everlora.testing.record import Record

# How fast a machine is decides no test: a busy one draws examples slowly, and is not wrong for that.
settings.register_profile("everlora", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("everlora")


RECORDS = ("test_battery.py", "test_resume.py", "test_export.py", "test_splits.py", "test_references.py")
"""Files that look at the same records of most methods."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process (``--dist loadgroup``), and all that look at the same records."""
    import plan  # imports what is tested, which the process that only hands out tests need not

    plan.thin(items)
    for item in items:
        group = "records" if item.path.name in RECORDS else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Let no search for garbage, of which every run makes several, look through all tests and all libraries again."""
    _check_groups(session)
    gc.collect()
    gc.freeze()


def _check_groups(session: pytest.Session) -> None:
    """Refuse a pytest with which pytest-xdist overlooks groups: every process would make all records and fixtures."""
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not group tests with this pytest; see constraints.txt")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Record]:
    """Give the one recorded run of a method on a model; look, do not touch."""
    from everlora.testing.record import record_run

    seen: dict[tuple[str, str], Record] = {}

    def get(method: str, model: str) -> Record:
        if (method, model) not in seen:
            seen[method, model] = record_run(method, model, tmp_path_factory.mktemp("run") / "run")
        return seen[method, model]

    return get


@pytest.fixture(scope="session", autouse=True)
def _no_disk() -> Iterator[None]:
    """Wait for no disk: what is in the page cache is lost with the power, which no test cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
