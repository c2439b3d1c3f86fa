"""Mutation testing: change one place of the source, run the tests near it, and see whether any of them notices.

    python tools/mutate.py --sample 100 --seed 0          # or: make mutate
    python tools/mutate.py --sample 20 parts/penalties.py

A mutant changes one operator, constant, condition, returned value or statement. Near a module are the test files that
import it, units first. Everything third-party is imported once; each mutant runs in a fork, and costs its tests alone.
What survives is printed; what cannot be told apart from the original by any test is listed in tools/equivalent.txt.

Why not a library: mutmut leaves out decorated functions and classes, which frozen dataclasses with ``no_grad`` are;
cosmic-ray starts a process per mutant, and most of that would be the import of torch.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import SourceFileLoader
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src", ROOT / "tests"
PACKAGE = SOURCE / "everlora"
ROOMS = ("core", "parts", "training", "metrics", "archive")
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
FOLDERS = ("unit", "seams", "equivalence", "contract")
"""Of tests, from near to far."""
PASSES = (FOLDERS[:2], FOLDERS[2:])
"""What whole runs would notice is tried only on what the tests of single modules have not noticed."""
MOST_SURVIVE = 5
"""Per cent."""
MOST = 12
"""Test files near one module."""

SWAPS: dict[Any, Any] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div},
    **{ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}


@dataclass(frozen=True)
class Mutant:
    """One change of one module: at the end of ``trail``, the way from its root, stands ``new``."""

    file: Path
    line: int
    place: str  # the function or class around it
    before: str
    after: str
    trail: tuple[Any, ...]
    new: ast.AST

    @property
    def tree(self) -> ast.Module:
        """The whole module, changed."""
        tree = ast.parse(self.file.read_text("utf-8"))
        *way, (name, k) = self.trail
        parent = at(tree, way)
        if k is None:
            setattr(parent, name, self.new)
        else:
            getattr(parent, name)[k] = self.new
        return ast.fix_missing_locations(tree)

    @property
    def known(self) -> str:
        """What it is called in the list of equivalent mutants: line numbers move."""
        return f"{self.file.relative_to(PACKAGE)} {self.place}: {self.before} -> {self.after}"


# --- mutants --------------------------------------------------------------------------------------------------------


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Return what may stand in the place of ``node``."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            changed: Any = copy.copy(node)
            changed.op = SWAPS[type(op)]()
            yield changed
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield ast.Compare(node.left, [SWAPS[type(op)]()], node.comparators)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1 if isinstance(value, int) else 2 * value + 1)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.IfExp(test=test):
            negated = copy.copy(node)
            negated.test = ast.UnaryOp(ast.Not(), test)
            yield negated
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


def places(node: ast.AST, inside: str = "", trail: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every node that does something, as the way from the root: annotations, messages and decorators are left out."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        inside = f"{inside}.{node.name}".lstrip(".")
    if trail:
        yield inside, trail
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for k, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield from places(child, inside, (*trail, (name, k if isinstance(value, list) else None)))


def at(tree: ast.AST, trail: Sequence[Any]) -> Any:
    """Return the node to which a way from the root leads."""
    node: Any = tree
    for name, k in trail:
        node = getattr(node, name) if k is None else getattr(node, name)[k]
    return node


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of one module."""
    tree, seen = ast.parse(file.read_text("utf-8")), Counter[str]()
    for inside, trail in places(tree):
        for new in changes(old := at(tree, trail)):
            one = Mutant(file, getattr(old, "lineno", 0), inside or "module", _text(old), _text(new), trail, new)
            seen[one.known] += 1
            again = seen[one.known]
            yield one if again == 1 else replace(one, place=f"{one.place} #{again}")


def _text(node: ast.AST) -> str:
    """One line: of a condition what is asked, not what follows."""
    text = f"if {ast.unparse(node.test)}" if isinstance(node, ast.If) else ast.unparse(node)
    return text.replace("\n", " ")


# --- near tests -----------------------------------------------------------------------------------------------------


def module_file(name: str) -> Path | None:
    """Return the file of a module of ours."""
    path = SOURCE.joinpath(*name.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


@cache
def imports(file: Path) -> frozenset[Path]:
    """Our modules that a file imports; of a package also what that package hands on."""
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            room = str(node.module)
            found |= {module_file(f"{room}.{alias.name}") or module_file(room) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
    ours = {one for one in found if one}
    packages = {one for one in ours if one.name == "__init__.py"} - {file, PACKAGE / "__init__.py"}
    handed = {deeper for one in packages for deeper in imports(one)}
    return frozenset(ours | handed)


def near(file: Path) -> list[Path]:
    """Return some of the test files that import a module or are named after it; if none do, those of its importers.

    Those named after it are among them; from near to far, and in each folder those first that import little else.
    """
    tests = [test for folder in FOLDERS for test in (TESTS / folder).glob("test_*.py")]
    names = tuple(f"test_{word}" for word in (file.stem, *file.stem.split("_")[1:]))
    found = [test for test in tests if file in imports(test) or test.stem.startswith(names)]
    users = [user for user in PACKAGE.rglob("*.py") if file in imports(user) and user.name != "__init__.py"]
    found = found or [test for test in tests if any(user in imports(test) for user in users)]
    found.sort(key=lambda test: (FOLDERS.index(test.parent.name), len(imports(test)), test.name))
    named = [test for test in found if test.stem.startswith(names)]
    chosen = {*named, *found[: max(0, MOST - len(named))]}
    return [test for test in found if test in chosen]


# --- running --------------------------------------------------------------------------------------------------------


def plant(mutant: Mutant) -> None:
    """Let the module be imported as the mutant has it."""
    plain, tree = SourceFileLoader.get_code, mutant.tree

    def get_code(self: SourceFileLoader, name: str) -> Any:
        changed = self.path == str(mutant.file)
        return compile(tree, self.path, "exec") if changed else plain(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]


def start(tests: Sequence[Path], mutant: Mutant | None, seconds: float, scratch: Path) -> int:
    """Fork a process that runs the tests on a mutant, or on the source as it is; give its id."""
    if pid := os.fork():
        return pid
    try:
        import pytest

        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        with open(scratch / f"{os.getpid()}.log", "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if mutant:
            plant(mutant)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(scratch / "hypothesis")
        words = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={scratch}/{os.getpid()}"]
        os._exit(int(pytest.main([*words, *map(str, tests)])))
    finally:
        os._exit(99)


def preload() -> None:
    """Import all that our modules import, and forget ours."""
    sys.path[:0] = [str(SOURCE), str(TESTS)]
    import hypothesis  # noqa: F401
    import torch

    import everlora.learner.experiment
    import everlora.testing  # noqa: F401

    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.split(".")[0] == "everlora"]:
        del sys.modules[name]


def run(jobs: Sequence[tuple[Sequence[Path], Mutant | None, float]], workers: int, report: Any = None) -> list[Any]:
    """Exit status and CPU seconds of every job, ``workers`` at a time."""
    ends: list[Any] = [None] * len(jobs)
    running: dict[int, int] = {}
    waiting = iter(enumerate(jobs))
    with tempfile.TemporaryDirectory(prefix="mutate-") as scratch:
        for _ in jobs:
            for k, job in islice(waiting, workers - len(running)):
                running[start(*job, Path(scratch))] = k
            pid, status, used = os.wait4(-1, 0)
            k = running.pop(pid)
            ends[k] = (os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)
            if report:
                report(k, ends[k])
    return ends


def unnoticed(
    mutants: Sequence[Mutant], near: dict[Path, list[Path]], folders: Sequence[str], workers: int
) -> list[Mutant]:
    """Return the mutants that none of the near tests in these folders notices."""
    tests = {one.file: [test for test in near[one.file] if test.parent.name in folders] for one in mutants}
    plain = sorted({test for some in tests.values() for test in some})
    ends = dict(zip(plain, run([([test], None, 3600) for test in plain], workers), strict=True))
    for test in (test for test, (status, _) in ends.items() if status):
        print(
            f"{test.relative_to(ROOT)} does not pass without a mutant (status {ends[test][0]}); left out", flush=True
        )
    tests = {file: [test for test in some if not ends[test][0]] for file, some in tests.items()}
    cost = {file: sum(ends[test][1] for test in some) for file, some in tests.items()}
    jobs = [(tests[one.file], one, 20 + 5 * cost[one.file]) for one in mutants if tests[one.file]]
    found = [one for one in mutants if not tests[one.file]]

    def report(k: int, end: tuple[int, float]) -> None:
        if end[0] == 0:
            found.append(jobs[k][1])
            print(f"not noticed by {' and '.join(folders)}: {jobs[k][1].known}", flush=True)

    run(jobs, workers, report)
    return found


def main() -> int:
    """Try a sample of mutants; 1 if too many of them survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help=f"modules below src/everlora (default: all of {', '.join(ROOMS)})")
    parser.add_argument("--sample", type=int, default=100, help="how many mutants; 0 for all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="which of them (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once (default: one per core)")
    told = parser.parse_args()
    listed = EQUIVALENT.read_text("utf-8").splitlines()
    equivalent = {line.partition("  # ")[0] for line in listed if line and not line.startswith("#")}
    files = [PACKAGE / one for one in told.files]
    files = files or [file for room in ROOMS for file in sorted((PACKAGE / room).rglob("*.py"))]
    every = [mutant for file in files for mutant in mutants(file) if mutant.known not in equivalent]
    chosen = random.Random(told.seed).sample(every, min(told.sample, len(every))) if told.sample else every
    preload()
    begun = time.monotonic()
    tests = {file: near(file) for file in {mutant.file for mutant in chosen}}
    survivors = chosen = [mutant for mutant in chosen if tests[mutant.file]]
    for folders in PASSES:
        survivors = unnoticed(survivors, tests, folders, told.jobs)
    for one in survivors:
        print(f"survived  {one.file.relative_to(ROOT)}:{one.line}  {one.known}")
    share = 100 * len(survivors) / max(1, len(chosen))
    print(
        f"{len(chosen)} mutants of {len(every)} tried (seed {told.seed}), {len(survivors)} survived ({share:.1f} %) "
        f"in {time.monotonic() - begun:.0f} s; {len(equivalent)} are listed as equivalent"
    )
    return int(share > MOST_SURVIVE)


if __name__ == "__main__":
    sys.exit(main())
