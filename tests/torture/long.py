"""A fault at every change that a verb makes in a learner's folder: ``python tests/torture/long.py``, ``make torture``.

With names of acts, only those; ``kill learn`` is a process that learns and is killed at every change in turn. The exit
status is 1 if anything was wrong.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torture.acts import ACTS, killed_everywhere, table, tortured

KILL = "kill "
"""Before the name of an act: a process of its own is killed in it."""


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    outcomes, ended = [], list[tuple[str, int, list[str]]]()
    with tempfile.TemporaryDirectory(prefix="everlora-torture-") as place:
        for number, name in enumerate(names or [*ACTS, f"{KILL}learn"]):
            began = time.process_time()
            if name.startswith(KILL):
                act = name.removeprefix(KILL)
                ended.append((act, *killed_everywhere(act, Path(place).resolve() / str(number) / "learner")))
                continue
            outcomes.append(tortured(name, Path(place).resolve() / str(number) / "learner"))
            print(f"{name}: {time.process_time() - began:.0f} s, {outcomes[-1].ends}", file=sys.stderr, flush=True)
            for line in outcomes[-1].wrong[:20]:
                print(f"  {line}", file=sys.stderr, flush=True)
    print(table(outcomes))
    for act, kills, wrong in ended:
        print(f"\n{act}: {kills} processes killed, {len(wrong)} wrong", *wrong[:20], sep="\n  ")
    total = sum(outcome.kills + outcome.failures for outcome in outcomes)
    print(f"\n{total} faults, {sum(len(outcome.wrong) for outcome in outcomes)} wrong")
    amiss = any(outcome.wrong or outcome.ends.get("traceback") for outcome in outcomes)
    return int(amiss or any(wrong for _, _, wrong in ended))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
