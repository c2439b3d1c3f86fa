"""What a run says that it cost, and the trace that it leaves."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from everlora.cli.app import run_command
from everlora.models import gguf_cache
from everlora.runtime import progress
from everlora.runtime.memory import peak_memory
from everlora.runtime.progress import Costs


def test_time_counts_once_for_the_innermost_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 4.0, 7.0, 8.0, 20.0, 30.0, 31.0, 40.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    found = Costs(began=0.0)
    with found.spent("training"):  # 0 to 8
        with found.spent("penalties"):  # 1 to 2
            pass
        with found.spent("penalties"):  # 4 to 7
            pass
    with pytest.raises(ValueError, match="broken"), found.spent("saving"), found.spent("answering"):  # 20 to 40
        raise ValueError("broken")
    assert found.seconds == {"training": 4.0, "penalties": 4.0, "saving": 19.0, "answering": 1.0}


def test_a_run_ends_with_what_it_cost_and_leaves_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "run --model tiny-llama --tasks reviews --max-train-samples 16 --max-eval-samples 4 --max-steps 4"
    assert run_command([*words.split(), "--no-report", "--profile", "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    found = re.search(
        r"cost: training (.*) s, penalties .* s, answering .* s, data .* s,\nsaving .* s, all else .* s", said
    )
    assert found is not None
    assert float(found[1]) > 0
    assert re.search(r" s; \d+\.\d\d GB of memory at most, \d+\.\d\d MB kept\n", said)
    assert max(map(len, said[found.start() :].splitlines()[:2])) <= 80
    events = json.loads((tmp_path / "run/trace.json").read_text())["traceEvents"]
    assert any("backward" in str(event.get("name", "")).lower() for event in events)
    assert (peak_memory() or 0) > 10**8
    assert run_command(["verify", str(tmp_path / "run")]) == 0
    (tmp_path / "run/trace.json").unlink()
    assert run_command([*words.split(), "--no-report", "--profile", "--resume", "-o", str(tmp_path / "run")]) == 0
    assert "nothing was trained, so " in capsys.readouterr().err


def test_what_was_left_while_a_file_was_unpacked_is_swept_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / "unpacking-old", tmp_path / "unpacking-new"
    for folder in (old, new, tmp_path / "whole"):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * gguf_cache.LEFT,) * 2)
    os.utime(tmp_path / "whole", (0, 0))
    gguf_cache._sweep(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["unpacking-new", "whole"]
