"""Two processes (gloo, CPU, torchrun) learn what one process learns, and the same on both."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny_runs
from everlora.cli.app import run_command
from everlora.models.families import causal, packed

sys.path.insert(0, str(Path(__file__).parent))
from ranks import CASES, RUNS, STRONG, UPPER


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


END = "== ended with"
COMMANDS = f"""
import json, os, shutil, sys
from everlora.cli.main import main

real = shutil.copyfile

def faulty(source, target):
    real(source, target)
    target.write_bytes(target.read_bytes()[:-1])

learned, unwritten, refused = json.loads(sys.argv[1])
for words, copy in ((learned, real), (unwritten, faulty)):
    if os.environ["RANK"] == "0":
        shutil.copyfile = copy
    try:
        main(words)
    except SystemExit as end:
        print("{END}", end.code or 0, file=sys.stderr)
main(refused)
"""
"""Three commands, the second on a disk that loses the last byte of what the first process copies."""
RUN = ("--benchmark", "builtin", "--max-eval-samples", "4", "-q", "--tasks")
LEARNED = ("run", "--model", "tiny-bert", "--method", "l2p", "--max-train-samples", "16", "--max-steps", "2", *RUN)
UNWRITTEN = ("run", "--model", "tiny-llama", "--max-train-samples", "8", "--max-steps", "1", *RUN, "reviews")
REFUSED = ("run", "--model", "tiny-llama", *RUN, "reviews")
Ended = tuple[int, str]


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Ended]]]:
    """A folder, and of three commands in two processes the status and stderr of each."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "mine").mkdir()
    (folder / "mine" / "note").write_text("mine")
    learned = [*LEARNED, "reviews,news", "--per-device-train-batch-size", "4", "--out", str(folder / "run")]
    unwritten, refused = [*UNWRITTEN, "--out", str(folder / "lost")], [*REFUSED, "--out", str(folder / "mine")]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COMMANDS, json.dumps([learned, unwritten, refused])],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    ranks: list[list[Ended]] = []
    for one in started:
        *parts, last = re.split(rf"{END} (\d+)\n", one.communicate(timeout=240)[1])
        ended = [(int(status), err) for err, status in zip(parts[::2], parts[1::2], strict=True)]
        ranks.append([*ended, (one.returncode, last)])
    return folder, [list(each) for each in zip(*ranks, strict=True)]


def test_a_run_goes_on_with_other_processes_if_a_step_has_the_same_rows(commanded):
    """With L2P, whose own term of the loss made DDP think that the keys were used twice."""
    folder, (ended, _, _) = commanded
    for status, err in ended:
        assert status == 0, err
    assert len(list(folder.glob("run/tasks/*/COMMIT"))) == 2

    def alone(rows: str) -> str:
        heard: list[str] = [""]
        how = [*LEARNED, "reviews,news", "--per-device-train-batch-size", rows, "--out", str(folder / "run")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("typer.echo", lambda text, err=False: heard.append(str(text)))
            status = run_command([*how, "--resume"])
        return heard[-1] if status else ""

    assert "different: rows of a step, over all processes" in alone("4")
    assert alone("8") == ""


def test_what_one_process_is_refused_all_say_in_one_line(commanded):
    _, (_, _, ended) = commanded
    for status, err in ended:
        assert status == 2
        assert "Traceback" not in err
        last = err.strip().splitlines()[-1]
        assert last.startswith("everlora: ")
        assert "is not empty and holds no run of everlora" in last


def test_what_one_process_cannot_write_all_say_in_one_line(commanded):
    folder, (_, ended, _) = commanded
    for status, err in ended:
        assert status == 2, err
        assert "Traceback" not in err
        assert "was not written as it was to be" in err.strip().splitlines()[-1]
    assert not list(folder.glob("lost/tasks/*"))


@pytest.mark.parametrize(("model", "case"), RUNS)
def test_two_processes_equal_one(model, case, two, tmp_path):
    ranks = [torch.load(two / f"{model}-{case}-{rank}.pt") for rank in (0, 1)]
    assert tiny_runs.largest_difference(*ranks) == 0, "the replicas have drifted apart"
    method, train = CASES[case]
    train = {k: v for k, v in train.items() if k != "gradient_accumulation_steps"}
    alone = tiny_runs.train_sequence(
        model, method, tmp_path / "run", train={**train, "per_device_train_batch_size": 8}
    )
    assert tiny_runs.largest_difference(ranks[0], tiny_runs.adapter(alone)) < 1e-5


def test_rows_that_are_packed_are_split_as_padded_ones_are(two, tmp_path, monkeypatch):
    ranks = [torch.load(two / f"packed-{rank}.pt") for rank in (0, 1)]
    assert tiny_runs.largest_difference(*ranks) == 0
    monkeypatch.setattr(packed, "SAVED", 1)  # rows of tiny tasks are short
    real, seen = packed.packed, []
    monkeypatch.setattr(causal, "packed", lambda model, packing: seen.append(packing) or real(model, packing))
    train = {**CASES["adamw"][1], "per_device_train_batch_size": 8}
    alone = tiny_runs.train_sequence("tiny-llama", STRONG, tmp_path / "run", train=train)
    assert seen
    assert tiny_runs.largest_difference(ranks[0], tiny_runs.adapter(alone)) < 1e-5


@pytest.mark.parametrize("method", ["per-task", "mtl"])
def test_references_equal_on_both(method, two):
    assert tiny_runs.largest_difference(*(torch.load(two / f"{method}-{rank}.pt") for rank in (0, 1))) == 0


def test_layers_that_are_run_once_are_split_as_all_are(two, tmp_path):
    ranks = [torch.load(two / f"upper-{rank}.pt") for rank in (0, 1)]
    assert tiny_runs.largest_difference(*ranks) == 0
    train = {**CASES["adamw"][1], "per_device_train_batch_size": 8}
    single = tiny_runs.train_sequence("tiny-bert", "ella+replay", tmp_path / "run", lora=UPPER, train=train)
    assert tiny_runs.largest_difference(ranks[0], tiny_runs.adapter(single)) < 1e-5


def test_one_folder_is_written_and_it_is_whole(two):
    for run in (*(two / model / case for model, case in RUNS), two / "zero-shot", two / "mtl"):
        assert (run / "matrix.json").is_file()
        assert not list(run.rglob("*.part"))
