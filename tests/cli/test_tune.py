"""From a search over rates to a sweep with what it found, in two processes."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Everlora

DATA = "--model tiny-bert --benchmark builtin --tasks reviews,reply --max-train-samples 8 --max-eval-samples 4"
HOW = "--max-steps 2 --eval-scoring labels --eval-schedule diagonal"
TINY = f"{DATA} {HOW}".split()


def test_tune_then_sweep_with_what_was_found(everlora: Everlora, tmp_path: Path) -> None:
    methods = ("--methods", "inclora,ella")
    said = everlora("tune", *TINY, *methods, "--trials", "3", "--out", "tuned")
    assert said.status == 0, said.err
    assert "use it with: everlora sweep --tuned" in said.out
    trials = json.loads((tmp_path / "tuned/trials.json").read_text())
    assert len(trials) == 6
    assert all(len(trial["scores"]) == 1 for trial in trials)
    found = everlora(
        "sweep", *TINY, *methods, "--tuned", "tuned/tuned.yaml", "--seeds", "0,1", "--workers", "2", "--out", "swept"
    )
    assert found.status == 0, found.err
    assert sorted(p.name for p in (tmp_path / "swept").iterdir()) == [
        f"{method}-seed{seed}" for method in ("ella", "inclora") for seed in (0, 1)
    ]
    # The same job in one process is the same run.
    alone = everlora("sweep", *TINY, *methods, "--tuned", "tuned/tuned.yaml", "--seeds", "0", "--out", "one")
    assert alone.status == 0, alone.err
    for method in ("ella", "inclora"):
        one, two = (tmp_path / where / f"{method}-seed0" for where in ("one", "swept"))
        assert (
            json.loads((one / "matrix.json").read_text())["matrix"]
            == json.loads((two / "matrix.json").read_text())["matrix"]
        )


def test_a_job_that_fails_in_a_worker_is_one_line(everlora: Everlora) -> None:
    said = everlora(
        "sweep", *TINY, "--methods", "inclora,seqlora", "--workers", "2", "--out", "x", "--lora-layers", "9"
    )
    assert said.status != 0
    assert "there are no layers 9" in said.err
    assert "Traceback" not in said.err
