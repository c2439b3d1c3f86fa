"""One process at a time writes to a folder; the others are told who does, and what a dead one left is taken over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from everlora.archive.folder import RunFolder
from everlora.archive.lock import OWNER, Owner, writing
from everlora.archive.parity import PARITY
from everlora.core.errors import FolderError
from everlora.learner.verbs.verify import keep_parity
from small_folders import make, record

HOLDS = """
import sys
from pathlib import Path
from everlora.archive.lock import writing

with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes to the folder until it is closed, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> None:
    process.communicate("")
    assert process.returncode == 0


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    lines: list[str] = []
    with another(tmp_path) as process:
        owner = rf"being written by process {process.pid} of .+ on .+, for 0 min; wait until it ends, or stop it$"
        with pytest.raises(FolderError, match=owner) as caught, writing(tmp_path):
            pytest.fail("it was let in")
        assert "\n" not in str(caught.value)
        with pytest.raises(FolderError, match=owner):
            RunFolder(tmp_path, record())
        ended(process)
        with writing(tmp_path, lines.append):
            pass
    assert lines == [], "it had let go"
    assert not (tmp_path / OWNER).exists()


def test_a_learner_that_is_written_to_can_be_read(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    with another(tmp_path):
        assert len(RunFolder(tmp_path, record(), resume=True, write=False).stages()) == 1
        with pytest.raises(FolderError, match="being written by process"):
            RunFolder(tmp_path, record(), resume=True)


def test_what_a_dead_process_left_is_taken_over_and_said(tmp_path: Path) -> None:
    lines: list[str] = []
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        with writing(tmp_path, lines.append):
            assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    (line,) = lines
    assert re.search(rf"was left by process {process.pid} of .+; going on with what it had committed$", line)
    with writing(tmp_path, lines.append):
        pass
    assert len(lines) == 1, "it is said once"


def test_a_run_says_what_was_found_when_its_folder_was_opened(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    with another(tmp_path) as process:
        process.kill()
        process.wait()
    folder, lines = RunFolder(tmp_path, record(), resume=True), list[str]()
    for _ in range(2):
        with folder.writing(lines.append):
            pass
    assert len(lines) == 1
    assert f"left by process {process.pid} " in lines[0]


def test_who_holds_it_may_hold_it_once_more(tmp_path: Path) -> None:
    with writing(tmp_path):
        with writing(tmp_path):
            pass
        assert (tmp_path / OWNER).exists(), "the inner one let go of what the outer one holds"
        with pytest.raises(AssertionError), another(tmp_path):
            pass
    with another(tmp_path) as process:
        ended(process)


def test_another_thread_is_refused_as_another_process_is(tmp_path: Path) -> None:
    def write() -> None:
        with writing(tmp_path):
            pass

    with ThreadPoolExecutor(1) as threads:
        with writing(tmp_path), pytest.raises(FolderError, match=f"being written by process {os.getpid()} of"):
            threads.submit(write).result()
        threads.submit(write).result()


def test_a_parity_is_not_written_while_another_process_writes(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    with another(tmp_path), pytest.raises(FolderError, match="being written by process"):
        keep_parity(tmp_path)
    keep_parity(tmp_path)
    assert (tmp_path / PARITY).is_file()


def test_it_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path):
        raise KeyboardInterrupt
    with another(tmp_path) as process:
        ended(process)


def test_a_folder_that_became_another_runs_is_not_written_to(tmp_path: Path) -> None:
    mine = RunFolder(tmp_path, record())
    RunFolder(tmp_path, record(1))  # nothing was learned yet, so it may
    with pytest.raises(FolderError, match="has been made another run's since it was opened"), mine.writing(print):
        pytest.fail("it was let in")


def test_an_owner_that_cannot_be_read_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text("{")
    lines: list[str] = []
    with writing(tmp_path, lines.append):
        pass
    assert lines == []


@pytest.mark.parametrize(
    ("seconds", "age"), [(0, "0 min"), (-5, "0 min"), (150, "2 min"), (3600, "1 h"), (86400, "24 h")]
)
def test_how_long_it_is_held_is_told_in_words(seconds: float, age: str) -> None:
    owner = Owner(user="ada", host="mill", pid=7, since=1000.0)
    assert owner.describe(1000.0 + seconds) == f"process 7 of ada on mill, for {age}"


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FolderError, match=r"cannot make the folder .*below: Not a directory"),
        writing(tmp_path / "file" / "below"),
    ):
        pytest.fail("it was let in")
