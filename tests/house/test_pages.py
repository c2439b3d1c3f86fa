"""The pages under docs/ that show how to write a part of one's own: every block on them is executed.

A block whose first line names a file in a comment (``# mean_pull.py``) is written to that file. Other Python blocks
are run in the order of the page, all in one process; ``everlora …`` and ``pytest …`` in shell blocks are run as they
stand, in a folder that holds the page's files.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

import everlora.testing  # noqa: F401  (what a fork need not import again)

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("write-*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"\A# ([\w-]+\.\w+)\n")
RUNS = {"everlora": ("-m", "everlora"), "pytest": ("-m", "pytest", "-p", "no:cacheprovider", "-q")}
EXPECTED = {"write-a-penalty", "write-a-transform", "write-a-benchmark", "write-a-metric", "write-an-adapter-form"}


def run(folder: Path, *words: str) -> None:
    """Run Python in a folder, in which modules are found, and show what it said if it failed.

    A fork has imported all that takes long; it is another process all the same.
    """
    if not (child := os.fork()):
        status: Any = 1
        try:
            with open(folder / "said", "wb") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            for name in [name for name in os.environ if name.startswith("PYTEST_")]:
                del os.environ[name]
            module = words[0] == "-m"
            sys.argv = list(words[1:] if module else words)
            if module:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(folder / words[0]), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"{shlex.join(words)}\n{(folder / 'said').read_text()}"


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
