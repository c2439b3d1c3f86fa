"""Real workers: Ctrl-C begins nothing more, and no worker outlives the command that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of groups of processes")
DATA = "--model tiny-bert --tasks reviews,news --max-train-samples 16 --max-eval-samples 8 --max-steps 500 -q"
SEARCH = ["tune", *DATA.split(), "--methods", "inclora", "--trials", "4", "--workers", "1", "--out", "t"]


@contextmanager
def searching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a search in a group of its own, until a worker has begun its first run."""
    search = subprocess.Popen(
        [sys.executable, "-m", "everlora", *SEARCH],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    until = time.monotonic() + 400
    while not begun(folder) and time.monotonic() < until and search.poll() is None:
        time.sleep(0.005)
    try:
        yield search
    finally:
        with suppress(ProcessLookupError):
            os.killpg(search.pid, signal.SIGKILL)


def begun(folder: Path, sign: str = "run.yaml") -> list[Path]:
    return list(folder.glob(f"t/inclora/*/*/{sign}"))


def test_nothing_begins_once_a_search_is_interrupted(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        os.killpg(search.pid, signal.SIGINT)
        out, err = search.communicate(timeout=400)
    assert (search.returncode, out) == (130, ""), err
    assert "everlora: interrupted; finished tasks are kept" in err
    assert "Traceback" not in err
    assert len(begun(tmp_path)) == 1
    assert not begun(tmp_path, "matrix.json")


def test_a_worker_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        search.kill()
        # The pipes end when the last process that holds them is gone, the worker that is.
        search.communicate(timeout=60)
    assert search.returncode == -signal.SIGKILL
    assert not begun(tmp_path, "matrix.json")
