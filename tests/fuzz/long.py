"""Try inputs for minutes: ``python tests/fuzz/long.py``, or ``make fuzz``.

The environment variable ``FUZZ_SECONDS`` is the budget of processor time over all targets, 600 if it is not set.
Faults are told apart by kind and place; of each the smallest input is shown. The exit status is 1 if one was found.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.harness import Fault, bounded_memory, judged
from fuzz.targets import TARGETS, Target

BATCH = 100


def tried(target: Target, seconds: float, first: int) -> tuple[int, dict[tuple[str, str], tuple[Fault, str, int]]]:
    """Executions, and by kind and place of a fault: one of it, its smallest input, and how often it came."""
    found: dict[tuple[str, str], tuple[Fault, str, int]] = {}
    count, begin, batch = 0, time.process_time(), first
    while time.process_time() - begin < seconds:

        @seed(batch)
        @settings(
            max_examples=BATCH,
            database=None,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(target.inputs)
        def execute(value: object) -> None:
            nonlocal count
            if time.process_time() - begin > seconds:
                return
            count += 1
            fault = judged(lambda folder: target.read(value, folder))
            if fault:
                key, shown = (fault.kind, fault.where), repr(value)
                old = found.get(key)
                small = old if old and len(old[1]) <= len(shown) else (fault, shown, 0)
                found[key] = (small[0], small[1], (old[2] if old else 0) + 1)

        execute()
        batch += 1
    return count, found


def main() -> int:
    budget, first = float(os.environ.get("FUZZ_SECONDS", "600")), int(os.environ.get("FUZZ_SEED", "0"))
    wanted = sys.argv[1:] or list(TARGETS)
    faults = 0
    for name in wanted:
        TARGETS[name].ready()
        with bounded_memory(4 << 30):
            count, found = tried(TARGETS[name], budget / len(wanted), first)
        print(f"{name}: {count} executions, {len(found)} faults", flush=True)
        for fault, shown, times in sorted(found.values(), key=lambda one: -one[2]):
            print(f"  {times} x {fault}\n      {shown[:300]}", flush=True)
        faults += len(found)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
