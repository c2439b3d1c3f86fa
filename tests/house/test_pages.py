"""The pages under docs/ that show how to write a part of one's own: every block on them is executed.

A block whose first line names a file in a comment (``# mean_pull.py``) is written to that file. Other Python blocks
are run in the order of the page, all in one process; ``everlora …`` and ``pytest …`` in shell blocks are run as they
stand, in a folder that holds the page's files.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("write-*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"\A# ([\w-]+\.\w+)\n")
RUNS = {"everlora": ("-m", "everlora"), "pytest": ("-m", "pytest", "-p", "no:cacheprovider", "-q")}
EXPECTED = {"write-a-penalty", "write-a-transform", "write-a-benchmark", "write-a-metric", "write-an-adapter-form"}


def run(folder: Path, *words: str) -> None:
    """Run Python in a folder, in which modules are found, and show what it said if it failed."""
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"


def commands(block: str) -> list[list[str]]:
    """The command lines of a shell block; a line that ends in a backslash goes on in the next."""
    lines = [shlex.split(line.removeprefix("$ "), comments=True) for line in block.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


def test_the_pages_are_there() -> None:
    assert {page.stem for page in PAGES} >= EXPECTED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    assert len(found) == page.read_text(encoding="utf-8").count("```") // 2, "a block has no language"
    script: list[str] = []
    for language, block in found:
        if named := NAMED.match(block):
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        elif language == "python":
            script.append(block)
    if script:
        (tmp_path / "the_page.py").write_text("\n".join(script), encoding="utf-8")
        run(tmp_path, "the_page.py")
    for language, block in found:
        if language == "bash":
            for program, *rest in commands(block):
                run(tmp_path, *RUNS[program], *rest)
