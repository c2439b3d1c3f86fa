"""Two processes (gloo, CPU, torchrun) learn what one process learns, and the same on both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lives

sys.path.insert(0, str(Path(__file__).parent))
from ranks import CASES, RUNS


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder that two processes have left."""
    out = tmp_path_factory.mktemp("ranks")
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("RANK", "WORLD_", "LOCAL_", "MASTER_", "PYTEST"))
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"]
    # The rendezvous chooses a free port by itself.
    command += [
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        str(Path(__file__).with_name("ranks.py")),
        str(out),
    ]
    run = subprocess.run(
        command,
        env={**clean, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return out


@pytest.mark.parametrize(("model", "case"), RUNS)
def test_two_processes_equal_one(model, case, two, tmp_path):
    ranks = [torch.load(two / f"{model}-{case}-{rank}.pt") for rank in (0, 1)]
    assert lives.largest_difference(*ranks) == 0, "the replicas have drifted apart"
    method, train = CASES[case]
    train = {k: v for k, v in train.items() if k != "gradient_accumulation_steps"}
    alone = lives.lived(model, method, tmp_path / "run", train={**train, "per_device_train_batch_size": 8})
    assert lives.largest_difference(ranks[0], lives.adapter(alone)) < 1e-5


@pytest.mark.parametrize("method", ["per-task", "mtl"])
def test_references_equal_on_both(method, two):
    assert lives.largest_difference(*(torch.load(two / f"{method}-{rank}.pt") for rank in (0, 1))) == 0


def test_one_folder_is_written_and_it_is_whole(two):
    for run in (*(two / model / case for model, case in RUNS), two / "zero-shot", two / "mtl"):
        assert (run / "matrix.json").is_file()
        assert not list(run.rglob("*.part"))
