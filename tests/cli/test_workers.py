"""Real workers: signals reach them, what they meet is told, and none outlives the command that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

import everlora.methods  # noqa: F401  # registers them
from everlora.learner.resolve import resolve
from everlora.learner.sweep import Job, jobs, sharing
from everlora.learner.workers import _Worker
from everlora.runtime.stopping import END
from everlora.settings.spec import RunSpec

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of groups of processes")
DATA = "--model tiny-bert --tasks reviews,news --max-train-samples 16 --max-eval-samples 8 --max-steps 500 -q"
SEARCH = ["tune", *DATA.split(), "--methods", "inclora", "--trials", "4", "--workers", "1", "--out", "t"]


WATCHED = """
import os, pathlib, sys, time
if "--multiprocessing-fork" in sys.orig_argv:  # a worker, which has imported next to nothing yet
    pathlib.Path(f"worker-{os.getpid()}").touch()
    until = time.monotonic() + 400
    while not os.path.exists("go") and time.monotonic() < until:
        time.sleep(0.005)
"""
"""Makes a worker show that it was born, and wait until it may go on."""


def wait(condition: Callable[[], object], search: subprocess.Popen[str]) -> None:
    """Wait until something is so, or the search has ended without it."""
    until = time.monotonic() + 400
    while not condition() and time.monotonic() < until and search.poll() is None:
        time.sleep(0.005)


@contextmanager
def started(folder: Path, *more: str, sigint: signal.Handlers = signal.SIG_DFL) -> Iterator[subprocess.Popen[str]]:
    """Start a search in a group of its own, with Ctrl-C ignored where it is so, and leave nothing of it."""
    search = subprocess.Popen(
        [sys.executable, "-m", "everlora", *SEARCH, *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"}
        | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, sigint) and None,
    )
    try:
        yield search
    finally:
        with suppress(ProcessLookupError):
            os.killpg(search.pid, signal.SIGKILL)


@contextmanager
def searching(folder: Path, *more: str, sigint: signal.Handlers = signal.SIG_DFL) -> Iterator[subprocess.Popen[str]]:
    """Start a search, until a worker has begun its first run."""
    with started(folder, *more, sigint=sigint) as search:
        wait(lambda: begun(folder), search)
        yield search


@contextmanager
def starting(folder: Path, workers: int) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a search, until its workers are born; they go on when the block calls for it by a file."""
    (folder / "sitecustomize.py").write_text(WATCHED)
    with started(folder, "--workers", str(workers)) as search:
        wait(lambda: len(list(folder.glob("worker-*"))) == workers, search)
        yield search, [int(path.name.partition("-")[2]) for path in folder.glob("worker-*")]


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_alone_ends_the_job_in_hand(number: signal.Signals, tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        search.send_signal(number)
        out, err = search.communicate(timeout=400)
    assert (search.returncode, out) == (128 + number, ""), err
    assert len(err.splitlines()) == 1
    assert "everlora: interrupted; finished tasks are kept" in err
    assert len(begun(tmp_path)) == 1
    assert not begun(tmp_path, "matrix.json")


def test_workers_that_are_being_born_are_quiet_about_ctrl_c(tmp_path: Path) -> None:
    with starting(tmp_path, 2) as (search, _):
        os.killpg(search.pid, signal.SIGINT)
        (tmp_path / "go").touch()
        out, err = search.communicate(timeout=400)
    assert (search.returncode, out) == (130, ""), err
    assert [line.partition(";")[0] for line in err.splitlines()] == ["everlora: interrupted"]
    assert not begun(tmp_path)


def test_a_worker_that_is_killed_is_told_in_one_line(tmp_path: Path) -> None:
    with starting(tmp_path, 1) as (search, workers):
        os.kill(workers[0], signal.SIGKILL)
        (tmp_path / "go").touch()
        out, err = search.communicate(timeout=400)
    assert (search.returncode, out) == (3, ""), err
    assert len(err.splitlines()) == 1, err
    assert "a worker was ended from outside" in err
    assert err.endswith("the same command and --resume\n")  # there are no fewer than one


def test_where_ctrl_c_is_ignored_workers_ignore_it(tmp_path: Path) -> None:
    """A script that puts a command into the background makes it so, and nohup does it for another signal."""
    with searching(tmp_path, "--max-steps", "20", "--trials", "2", sigint=signal.SIG_IGN) as search:
        os.killpg(search.pid, signal.SIGINT)
        _, err = search.communicate(timeout=400)
    assert search.returncode == 0, err
    assert len(begun(tmp_path, "matrix.json")) == 2


def test_what_the_start_of_a_worker_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    model = tmp_path / "bad"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    with started(tmp_path, "--model", str(model)) as search:
        out, err = search.communicate(timeout=400)
    assert (search.returncode, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert str(model) in err
    assert "worker" not in err


def test_a_worker_lets_a_training_write_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a command without workers does: SIGTERM waits for the checkpoint, and Ctrl-C for nothing."""
    worker, left = _Worker(), Event()
    monkeypatch.setattr(os, "kill", lambda *_: left.set())
    with worker.at_work(), END.heeded():
        worker.press(signal.SIGTERM, None)
        assert END.requested
        worker.press(signal.SIGTERM, None)  # to the whole group, and passed on by the command
    assert left.wait(60)  # with the work put away the process goes, though nobody tells it to
    worker = _Worker()
    with pytest.raises(KeyboardInterrupt), worker.at_work(), END.heeded():
        worker.press(signal.SIGINT, None)
    assert not END.requested
    with pytest.raises(KeyboardInterrupt), worker.at_work():
        pytest.fail("nothing begins once a signal has come")


def test_runs_are_called_by_their_folder_inside_the_sweep(tmp_path: Path) -> None:
    """Two trials of a search have runs of one name, in folders of their own."""
    spec = resolve(RunSpec, {"model": "tiny-bert", "benchmark": "builtin"})
    todo = jobs(
        [{"model": "tiny-bert", "benchmark": "builtin"}], ["inclora"], [100], tmp_path / "t/inclora/inclora-rate0.1"
    )
    with sharing(todo, tmp_path / "t") as shared:
        assert [job.name for job in shared] == ["inclora/inclora-rate0.1/inclora-seed100"]
    with sharing(todo, todo[0].folder.parent) as shared:
        assert [job.name for job in shared] == ["inclora-seed100"]
    assert [job.name for job in todo] == ["inclora-seed100"]
    assert Job(spec, tmp_path / "one").name == "one"
