"""The rules of the house, read from the source: who imports whom, what nobody does, how long a thing may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import everlora

ROOT = Path(everlora.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES, MAX_FUNCTION = 300, 60

MAY_IMPORT = {
    "core": {"core"},
    "parts": {"parts", "core"},
    "methods": {"methods", "parts", "core"},
    "streams": {"streams", "core"},
    "record": {"record", "core"},
    "engine": {"engine", "record", "core"},
    "analysis": {"analysis", "engine", "record", "parts", "core"},
    "testing": {"testing", "methods", "experiment", "engine", "record", "core"},
}
"""Rooms of everlora that a room may import. What is not a room (experiment, cli, learner) sees them all."""

LONG_FUNCTIONS = {"cli/main.py:run": "its signature is the list of the command's flags"}

HEAVY = {"transformers", "peft", "accelerate", "datasets"}
"""Third parties that these rooms must do without."""
LIGHT_ROOMS = {"core", "parts", "methods", "record"}

COLLECTIVES = re.compile(r"^(torch\.distributed|accelerate)(\.|$)")
PICKLES = re.compile(r"^(pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal)(\.|$)|^torch\.(load|save)$")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str | None:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else None


def imports(module: ast.Module, package: tuple[str, ...] = ()) -> Iterator[str]:
    """Full names of everything imported, at the top and inside functions, also by name at run time."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in {"import_module", "__import__"}:
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a chain of attributes, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def names(path: Path) -> list[str]:
    return list(imports(tree(path), ("everlora", *path.relative_to(ROOT).parent.parts)))


def uses(path: Path) -> set[str]:
    """Imported names, and chains of attributes such as ``torch.load``."""
    chains = {dotted(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    return {*names(path), *chains}


def crossed(where: str, found: list[str]) -> list[str]:
    """Imports of rooms that the room ``where`` must not see."""
    allowed = MAY_IMPORT[where]
    wrong = []
    for name in found:
        head, _, rest = name.partition(".")
        if head == "everlora" and rest and rest.split(".")[0] not in allowed:
            wrong.append(name)
        elif name == "everlora":
            wrong.append(name)  # the package's face sees all rooms
    return wrong


by_file = pytest.mark.parametrize("path", FILES, ids=place)


def test_every_folder_is_a_known_room() -> None:
    assert {room(path) for path in FILES} - {None} == {*MAY_IMPORT, "cli"}


@by_file
def test_imports_keep_to_the_rooms(path: Path) -> None:
    if room(path) in MAY_IMPORT:
        found = [name for name in names(path) if name != "everlora" or not from_package(path)]
        assert crossed(str(room(path)), found) == []


def from_package(path: Path) -> bool:
    """Whether ``everlora`` stands there only as in ``from everlora import streams``."""
    return all(
        alias.name != "everlora"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    )


@pytest.mark.parametrize(
    ("where", "source", "caught"),
    [
        ("engine", "from everlora.parts.penalties import EnergyOverlap", True),
        ("engine", "def f():\n    import everlora.methods.ella", True),
        ("engine", "from everlora import streams", True),
        ("engine", "import importlib\nimportlib.import_module('everlora.parts')", True),
        ("engine", "from ..parts import penalties", True),
        ("engine", "from . import world", False),
        ("engine", "from everlora.record.folder import RunFolder", False),
        ("core", "if True:\n    from everlora.engine import world", True),
        ("record", "from everlora.engine import world", True),
        ("streams", "from everlora.core.task import Task", False),
        ("methods", "import everlora.parts.penalties as p", False),
    ],
)
def test_the_check_itself_sees(where: str, source: str, caught: bool) -> None:
    found = [name for name in imports(ast.parse(source), ("everlora", where)) if name != "everlora"]
    assert bool(crossed(where, found)) is caught


@by_file
def test_light_rooms_do_without_the_heavy_libraries(path: Path) -> None:
    if room(path) in LIGHT_ROOMS:
        assert HEAVY & {name.split(".")[0] for name in names(path)} == set()


@by_file
def test_only_one_file_speaks_distributed(path: Path) -> None:
    if place(path) != "engine/world.py":
        assert [name for name in sorted(uses(path)) if COLLECTIVES.match(name)] == []


def test_that_file_does() -> None:
    assert any(COLLECTIVES.match(name) for name in uses(ROOT / "engine" / "world.py"))


@by_file
def test_nothing_is_pickled(path: Path) -> None:
    """A pickle from a model hub runs code. Neither read nor written, nor allowed in numpy and torch calls."""
    assert [name for name in sorted(uses(path)) if PICKLES.match(name)] == []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            assert (node.arg, node.value.value) not in {("allow_pickle", True), ("weights_only", False)}, (
                node.value.lineno
            )


@by_file
def test_printing_is_the_command_lines_business(path: Path) -> None:
    if room(path) != "cli":
        calls = [n for n in ast.walk(tree(path)) if isinstance(n, ast.Call)]
        assert [n.lineno for n in calls if dotted(n.func) in {"print", "sys.stdout.write"}] == []


@by_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@by_file
def test_functions_are_short(path: Path) -> None:
    long = {f"{place(path)}:{f.name}" for f in functions(tree(path)) if length(f) > MAX_FUNCTION}
    assert long - set(LONG_FUNCTIONS) == set()


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def test_exceptions_to_the_length_are_still_needed() -> None:
    found = {f"{place(p)}:{f.name}" for p in FILES for f in functions(tree(p)) if length(f) > MAX_FUNCTION}
    assert found == set(LONG_FUNCTIONS)


def part_names() -> dict[str, str]:
    """Class names of parts, and the names that they carry, with the file in which they are at home."""
    found = {}
    for path in FILES:
        if room(path) != "parts":
            continue
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = place(path)
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and dotted(line.target) == "name":
                        assert isinstance(line.value, ast.Constant)
                        found[str(line.value.value)] = place(path)
    return found


def test_parts_have_been_found() -> None:
    assert {"EnergyOverlap", "energy_overlap", "Orthogonality", "FactorNorm", "factor_norm"} <= set(part_names())


@by_file
def test_nobody_asks_which_part_it_is(path: Path) -> None:
    """Behaviour belongs to the part: no ``if part.name == "energy_overlap"``, no look-up by such a name."""
    if room(path) == "methods":
        return  # methods name the parts they are made of
    at_home = {name for name, home in part_names().items() if home == place(path)}
    foreign = set(part_names()) - at_home
    quoted = {n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert quoted & foreign == set()
    assert room(path) == "parts" or foreign & {dotted(n).split(".")[-1] for n in ast.walk(tree(path))} == set()


@by_file
def test_no_file_looks_at_a_class_by_its_name(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            sides = [dotted(side) for side in (node.left, *node.comparators)]
            assert not any(side.endswith("__name__") and side != "__name__" for side in sides), node.lineno
