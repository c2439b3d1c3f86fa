"""Two processes that a system ends together go on with the task that was under way, and end with the same bits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

CONTRACT = Path(__file__).parents[1] / "contract"
PROGRAM = f"""
import signal, sys
from pathlib import Path
sys.path[:0] = [{str(CONTRACT)!r}, {str(CONTRACT.parent)!r}]
from test_checkpoint import Cord, Ended, taught
from everlora.cli.common import interruptible
from everlora.core.errors import Interrupted
place = Path(sys.argv[1])
try:
    with interruptible("all stands"):
        taught(place / "cut", "ella", "tiny-bert", Ended("reviews", 3, signal.SIGTERM), every=100)
except Interrupted as end:
    print(end.status, len(list(place.glob("cut/tasks/*/COMMIT"))), end)
again = Cord()
taught(place / "cut", "ella", "tiny-bert", again, resume=True, every=100)
print(sorted(label for label in again.steps if label.startswith("learning")))
taught(place / "whole", "ella", "tiny-bert", Cord(), every=100)
"""


@pytest.mark.full
def test_two_processes_that_are_ended_go_on_behind_the_last_task(tmp_path: Path) -> None:
    """A checkpoint inside a task is of one process alone; of several, the task that was under way begins again."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for one in started:
        out, err = one.communicate(timeout=400)
        assert one.returncode == 0, err[-3000:]
        # One of two tasks was committed, and is not learned again.
        assert out.splitlines() == ["143 1 interrupted; all stands", "['learning reviews']"]
    cut, whole = (tmp_path / name / "adapter_model.safetensors" for name in ("cut", "whole"))
    assert cut.read_bytes() == whole.read_bytes()
    assert load_file(cut).keys()
    assert not (tmp_path / "cut/.training").exists()
