"""A fault at every change that a verb makes in a learner's folder: ``python tests/torture/long.py``, ``make torture``.

With names of acts, only those. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torture.acts import ACTS, table, tortured


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="everlora-torture-") as place:
        for number, name in enumerate(names or ACTS):
            began = time.process_time()
            outcomes.append(tortured(name, Path(place).resolve() / str(number) / "learner"))
            print(f"{name}: {time.process_time() - began:.0f} s, {outcomes[-1].ends}", file=sys.stderr, flush=True)
            for line in outcomes[-1].wrong[:20]:
                print(f"  {line}", file=sys.stderr, flush=True)
    print(table(outcomes))
    total = sum(outcome.kills + outcome.failures for outcome in outcomes)
    print(f"\n{total} faults, {sum(len(outcome.wrong) for outcome in outcomes)} wrong")
    return int(any(outcome.wrong or outcome.ends.get("traceback") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
