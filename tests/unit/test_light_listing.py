"""Listing benchmarks and metrics reads YAML and nothing else: no rows, no arrays, no tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import everlora

HEAVY = {"torch", "numpy", "pydantic", "transformers", "datasets", "sklearn", "rouge_score", "sacrebleu", "rapidfuzz"}
LISTING = """
import sys, types
bare = types.ModuleType("everlora")  # the rooms alone, without what the package's face imports
bare.__path__ = [sys.argv[1]]
sys.modules["everlora"] = bare
from everlora.benchmarks import benchmarks
from everlora.metrics import answer_metrics, matrix_metrics
print(len([(known.title, known.tasks, known.scoring, known.needs_data, known.modality) for known in benchmarks()]))
print(len(answer_metrics()) + len(matrix_metrics()))
print(*sorted(sys.modules))
"""


def test_a_listing_imports_nothing_heavy() -> None:
    place = str(Path(everlora.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LISTING, place], capture_output=True, text=True, timeout=60, check=True
    )
    benchmarks, metrics, modules = done.stdout.splitlines()
    assert (int(benchmarks), int(metrics)) == (12, 37)
    loaded = set(modules.split())
    assert loaded & HEAVY == set()
    assert not [
        name for name in loaded if name.startswith(("everlora.benchmarks.synthetic", "everlora.benchmarks.vi"))
    ]
    assert {"everlora.benchmarks.folders", "everlora.data.tasks", "everlora.data.files"} & loaded == set()
