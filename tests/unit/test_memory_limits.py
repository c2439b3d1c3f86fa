"""The memory that there is for a process is that of its container where this is smaller than the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from everlora.core.errors import ConfigError
from everlora.runtime import memory
from everlora.runtime.memory import group_limits, physical_memory
from everlora.testing import tiny_runs

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V2, V1 = "memory.max", "memory/memory.limit_in_bytes"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups of one's own, without any limit."""
    found = tmp_path / "groups"
    found.mkdir()
    monkeypatch.setattr(memory, "CONTROL_GROUPS", found)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return found


def limit(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


@pytest.mark.parametrize("file", [V2, V1])
@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("1048576\n", 2**20),
        (f"{MACHINE + 1}\n", MACHINE),
        ("9223372036854771712\n", MACHINE),  # what version 1 says where nothing is limited
        ("max\n", MACHINE),
        ("", MACHINE),
    ],
)
def test_the_smaller_of_both_counts(file: str, text: str, there: int, groups: Path) -> None:
    limit(groups / file, text)
    assert physical_memory() == there


def test_without_control_groups_the_machines_memory_counts(groups: Path) -> None:
    assert (physical_memory(), group_limits()) == (MACHINE, [])


def test_groups_above_that_of_the_process_limit_it_and_no_others(groups: Path, tmp_path: Path) -> None:
    """As on the nodes of a cluster, where a job is a group and no container."""
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/other\n4:memory,hugetlb:/slurm/job\n0::/user.slice/a:b\n", encoding="ascii")
    for place, size in (("slurm", 7), ("slurm/job", 6), ("slurm/another", 1), ("other", 2)):
        limit(groups / "memory" / place / "memory.limit_in_bytes", str(size))
    for place, size in (("user.slice", 9), ("user.slice/a:b", 8), ("other", 3)):
        limit(groups / place / "memory.max", str(size))
    assert sorted(group_limits()) == [6, 7, 8, 9]
    assert physical_memory() == 6


def test_a_store_beyond_the_containers_memory_is_refused_before_the_first_step(groups: Path, tmp_path: Path) -> None:
    """Only what the part would remember is too large: the adapter itself takes less."""
    limit(groups / V2, "60000")
    steps: list[str] = []
    with pytest.raises(ConfigError, match=r"'kronecker_curvature' remembers.*and there are 60 kB; take"):
        tiny_runs.train_sequence(
            "tiny-bert", "kfac", tmp_path / "run", progress=tiny_runs.Watch(learning=steps.append)
        )
    assert steps == []
