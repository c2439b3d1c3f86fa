"""An assistant's life in many processes, three of them killed, ends with a model that needs nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.full
def test_the_script_of_the_docs_runs_to_its_end(tmp_path: Path) -> None:
    known = {"MODEL": "tiny-llama", "STEPS": "4", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "examples/assistant.sh", str(tmp_path)],
        cwd=ROOT, env={**os.environ, **known}, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "assistant is sound: 3 tasks" in done.stdout
    assert "moved to" in done.stdout
    assert "nothing else is claimed" in done.stdout
    assert "largest difference of logits" in done.stdout
    assert "Traceback" not in done.stderr
