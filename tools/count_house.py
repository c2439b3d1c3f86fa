"""Counts what the house promises: docstrings, comments, flags on parts, files, what a step and a command cost.

    python tools/count_house.py [FOLDER]        lines and files of the package, or of another checkout's src/everlora
    python tools/count_house.py --step          files that a training step and a task pass through
    python tools/count_house.py --imports       modules and CPU seconds of commands; on an idle machine

Docstring and comment shares are lines per line of code (blank lines, docstrings and comment lines are no code). A line
with code and a comment counts as both.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

PRAGMA = re.compile(r"#\s*(noqa|type:|fmt:|pragma)")
"""Comments for tools, which tell a reader nothing."""
PACKAGE = Path(__file__).parents[1] / "src" / "everlora"
PARTS = {"part", "rule", "penalty", "transform"}
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TASKS = {"trace": ("C-STANCE", "NumGLUE-cm", "20Minuten"), "standard": ("yahoo", "dbpedia", "agnews")}
"""Tasks by benchmark, of which every file is found that names one."""
COMMANDS = ("--help", "run --help", "benchmarks", "status RUN", "methods", "compare RUN")
COUNTED = """
import atexit, runpy, sys
atexit.register(lambda: print(len(sys.modules), file=sys.stderr))
runpy.run_module("everlora", run_name="__main__")
"""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstrings(tree: ast.Module) -> set[int]:
    """Return the lines of all bare strings: docstrings, and those under attributes."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def count(text: str) -> Counter[str]:
    """Count the lines of one file by kind, and what else is counted in it."""
    tree = ast.parse(text)
    doc = docstrings(tree)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    spans = (range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in NO_CODE)
    code = {line for span in spans for line in span} - doc
    comments = {t.start[0] for t in tokens if t.type == tokenize.COMMENT and not PRAGMA.match(t.string)}
    found = Counter(code=len(code), docstring=len(doc), comment=len(comments))
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            found["definitions"] += 1
            written = ast.get_docstring(node) or ""
            found["with a docstring"] += bool(written)
            found["with an example"] += ">>> " in written
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            # With a default, whatever is misspelt goes unseen.
            on = node.args[0]
            found["getattr on parts"] += isinstance(on, ast.Name) and on.id in PARTS and len(node.args) == 3
    return found


def naming(package: Path, words: Sequence[str]) -> list[str]:
    """Return the files of a package, code and data, that name one of some things as a word of its own."""
    some = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])")
    files = (path for path in sorted(package.rglob("*")) if path.suffix in (".py", ".yaml"))
    return [path.relative_to(package).as_posix() for path in files if some.search(path.read_text(encoding="utf-8"))]


def show_source(package: Path) -> None:
    """Print what can be counted in the source of a package."""
    files = {path.relative_to(package): path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    counts = {name: count(text) for name, text in files.items()}
    total = sum(counts.values(), Counter[str]())
    rooms = Counter(name.parts[0] if len(name.parts) > 1 else "(root)" for name in files)
    longest = max(files, key=lambda name: files[name].count("\n"))
    print(f"{len(files)} files, {total['code']} lines of code")
    for kind in ("docstring", "comment"):
        print(f"{kind} lines per line of code: {100 * total[kind] / total['code']:.1f} % ({total[kind]})")
    for kind in ("with a docstring", "with an example"):
        print(f"modules, classes and functions {kind}: {total[kind]} of {total['definitions']}")
    print(f"attributes of parts that may be missing: {total['getattr on parts']}")
    print(f"longest file: {longest}, {files[longest].count(chr(10))} lines")
    print("files per room: " + ", ".join(f"{room} {n}" for room, n in sorted(rooms.items())))
    for benchmark, tasks in TASKS.items():
        print(f"files that name tasks of {benchmark}: " + ", ".join(naming(package, tasks)))


class Entered:
    """Notes which files of a package are entered, function call by function call, while it is on.

    Attributes:
        files: one for each call, in order.
    """

    def __init__(self, package: Path) -> None:
        self.root = f"{package}{os.sep}"
        self.files: list[str] = []

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of a call; this is what `sys.setprofile` calls."""
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(self.root):
            self.files.append(file.removeprefix(self.root))

    @contextmanager
    def on(self) -> Iterator[None]:
        """Take note of all calls inside the ``with`` block."""
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(None)


def changes(files: Sequence[str]) -> int:
    """Return how often a call is in another file than the call before.

    >>> changes(["a", "a", "b", "a"])
    2
    """
    return sum(one != other for one, other in pairwise(files))


def second_task(method: str = "ella", steps: int = 6) -> tuple[list[str], list[str]]:
    """Train two tiny tasks, and return the files that are entered in one step of the second, and in all of it.

    A step reaches from behind an optimiser's step to behind the next; nothing is logged in the one that is returned.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from everlora.learner.sequential import SequentialLearner
    from everlora.testing import tiny_runs

    entered, ends, run_task = Entered(PACKAGE), list[int](), SequentialLearner.run_task

    def watched(self: SequentialLearner, stage: Any, *arguments: Any) -> Any:
        if stage.number == 1:
            return run_task(self, stage, *arguments)
        with entered.on():
            return run_task(self, stage, *arguments)

    train = {"max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 100}
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(len(entered.files)))
    SequentialLearner.run_task = watched  # type: ignore[method-assign,assignment]
    try:
        with tempfile.TemporaryDirectory() as place:
            tiny_runs.train_sequence("tiny-llama", method, Path(place) / "run", train=train)
    finally:
        SequentialLearner.run_task = run_task  # type: ignore[method-assign]
        hook.remove()
    begin, end = ends[-steps:][2:4]
    return entered.files[begin:end], entered.files


def show_step() -> None:
    """Print the files that a step and a task pass through."""
    for what, files in zip(("a training step", "a task"), second_task(), strict=True):
        each = Counter(files)
        print(f"{what}: {len(each)} files, {changes(files)} changes of file, {len(files)} calls")
        print("  " + ", ".join(f"{file} {calls}" for file, calls in sorted(each.items())))


def cost(words: Sequence[str], folder: Path, times: int = 4) -> tuple[int, float]:
    """Return how many modules a command imports, and its CPU seconds, the best of several."""
    modules, seconds = 0, []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, *words], cwd=folder, capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        modules = int(done.stderr.splitlines()[-1])
    return modules, min(seconds)


def show_imports() -> None:
    """Print what commands import and how long they take."""
    with tempfile.TemporaryDirectory() as place:
        made = (
            "run -m tiny-llama --tasks reviews,news --max-train-samples 8 --max-eval-samples 4 --max-steps 1 -o RUN -q"
        )
        cost(made.split(), Path(place), times=1)
        for command in COMMANDS:
            modules, seconds = cost(command.split(), Path(place))
            print(f"everlora {command}: {modules} modules, {seconds:.2f} s of CPU, the best of four")


def main() -> None:
    """Print the counts that the command line asks for."""
    parser = argparse.ArgumentParser(description="Count what the house promises.")
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE, help="a package's source, for its lines")
    parser.add_argument("--step", action="store_true", help="files that a training step and a task pass through")
    parser.add_argument("--imports", action="store_true", help="modules and CPU seconds of commands")
    given = parser.parse_args()
    if given.step:
        show_step()
    if given.imports:
        show_imports()
    if not given.step and not given.imports:
        show_source(given.folder)


if __name__ == "__main__":
    main()
