"""Real processes: Ctrl-C, kill -9, python -m, the example."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from everlora.cli.main import main

from .conftest import SMALL, Everlora, committed

REPO = Path(__file__).parents[2]
LONG = ["--model", "tiny-llama", "--tasks", "reviews,news", "--max-steps", "80", "--max-eval-samples", "4"]
LONG = ["run", *LONG, "--max-train-samples", "64", "--out", "run", "--json"]


def stopped(folder: Path, number: int, *more: str) -> tuple[int, str, str]:
    """Start a run and send it a signal as soon as its first task is learned and scored."""
    command = [sys.executable, "-m", "everlora", *LONG, *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background is started with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    until = time.monotonic() + 400
    scored = folder / "run/tasks/01-reviews/evaluation-1/COMMIT"
    while not scored.exists() and time.monotonic() < until and run.poll() is None:
        time.sleep(0.005)
    time.sleep(0.1)
    run.send_signal(number)
    out, err = run.communicate(timeout=400)
    return run.returncode, out, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, out = tmp_path_factory.mktemp("undisturbed"), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        main(LONG)
    assert not end.value.code
    assert set(json.loads(out.getvalue().splitlines()[-1])) >= {"tasks", "matrix", "metrics", "folder"}
    return committed(folder / "run")


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith((".safetensors", "predictions.jsonl"))}


INTERRUPTED = (signal.SIGINT, 130, ())
KILLED = (signal.SIGKILL, -signal.SIGKILL, ("--log-level", "debug"))


@pytest.mark.parametrize(("number", "status", "more"), [INTERRUPTED, KILLED])
def test_a_stopped_run_keeps_what_it_learned_and_goes_on(
    everlora: Everlora,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    number: int,
    status: int,
    more: tuple[str, ...],
) -> None:
    """One shows what its libraries log, the other that they are silent otherwise: levels are of a process."""
    found, out, err = stopped(tmp_path, number, *more)
    assert found == status, err
    assert out == ""
    assert "Traceback" not in err
    assert any("DEBUG " in line for line in err.splitlines()) == ("debug" in more)
    if number == signal.SIGINT:
        first, last = (line for line in err.splitlines() if not line.startswith("warning: "))
        assert first[9:].startswith("1. reviews: ")  # behind the time
        assert last.startswith("everlora: interrupted; finished tasks are kept")
        assert "--resume" in last
    before = committed(tmp_path / "run")
    assert {name.split("/")[0] for name in before} == {"01-reviews"}
    assert everlora(*LONG, "--resume").json["tasks"] == ["reviews", "news"]
    after = committed(tmp_path / "run")
    assert before.items() <= after.items()
    assert weights(after) == weights(undisturbed)
    assert not list((tmp_path / "run").rglob("*.part"))


def test_the_example_for_newcomers(tmp_path: Path) -> None:
    script = REPO / "examples/own_tasks.py"
    assert sum(bool(line.strip()) for line in script.read_text().splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=True
    )
    rows = done.stdout.splitlines()
    assert len(rows) == 2
    assert rows[0].endswith(", None)")
    assert done.stderr == ""


def test_a_launcher_is_given_the_line_of_an_error(
    everlora: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun reads the file that it names, and repeats it as root cause."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    line = everlora("run", *SMALL, "--method", "ellla", "--out", "r").line
    assert "unknown method 'ellla'" in line
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert failure.message == line
    assert failure.timestamp > 0


def test_a_reader_that_leaves_is_no_fault_of_anybody(tmp_path: Path) -> None:
    """As in ``everlora benchmarks | head``: no line blames a plug-in."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "everlora", "benchmarks"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=400)
    os.close(write)
    assert done.stderr == ""
