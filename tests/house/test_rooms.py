"""The rules of the house, read from the source: who imports whom, what nobody does, how long a thing may be.

Each rule is one loop over all files that collects the offenders; a failure shows every one of them.
"""

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

FLOORS = (
    {"core"},
    {"metrics", "runtime", "kernels"},
    {"data", "parts"},
    {"settings", "methods", "benchmarks"},
    {"archive"},
    {"models"},
    {"adapters"},
    {"training", "evaluation"},
    {"analysis"},
    {"literature", "export"},
    {"learner"},
    {"report"},
    {"testing"},
    {"cli"},
)
"""Rooms of everlora from the ground up: a room may import itself and what stands on floors below its own."""

LONG_FUNCTIONS: dict[str, str] = {}

HEAVY = {"transformers", "peft", "accelerate", "datasets"}
"""Third parties that these rooms must do without."""
LIGHT_ROOMS = {"core", "metrics", "parts", "methods", "settings", "archive"}

COLLECTIVES = re.compile(r"^(torch\.distributed|accelerate)(\.|$)")
SPEAKS_DISTRIBUTED = "runtime/world.py"
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
            if base != "everlora":  # ``from everlora import x`` names the room x
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


def floor(where: str) -> int:
    return next(k for k, rooms in enumerate(FLOORS) if where in rooms)


def crossed(where: str, found: list[str]) -> list[str]:
    """Imports of rooms that the room ``where`` must not see, and of the package's face, which sees them all."""
    allowed = {where, *(room for rooms in FLOORS[: floor(where)] for room in rooms)}
    ours = [name.split(".") for name in found if name.split(".")[0] == "everlora"]
    return [".".join(parts) for parts in ours if len(parts) == 1 or parts[1] not in allowed]


def test_every_folder_is_a_known_room() -> None:
    assert {room(path) for path in FILES} - {None} == {room for rooms in FLOORS for room in rooms}


def test_imports_point_downwards() -> None:
    inside = [path for path in FILES if room(path)]
    assert {place(path): wrong for path in inside if (wrong := crossed(str(room(path)), names(path)))} == {}


@pytest.mark.parametrize(
    ("where", "source", "caught"),
    [
        ("parts", "from everlora.training.chain import Chain", True),
        ("models", "def f():\n    import everlora.training.chain", True),
        ("models", "from everlora import learner", True),
        ("models", "import everlora", True),
        ("models", "import importlib\nimportlib.import_module('everlora.learner')", True),
        ("models", "from ..training import chain", True),
        ("models", "from . import loading", False),
        ("training", "from everlora.archive.folder import RunFolder", False),
        ("training", "from everlora.evaluation import evaluator", True),
        ("core", "if True:\n    from everlora.runtime import world", True),
        ("archive", "from everlora.adapters import files", True),
        ("data", "from everlora.core.errors import DataError", False),
        ("methods", "import everlora.parts.penalties as p", False),
    ],
)
def test_the_check_itself_sees(where: str, source: str, caught: bool) -> None:
    assert bool(crossed(where, list(imports(ast.parse(source), ("everlora", where))))) is caught


def test_light_rooms_do_without_the_heavy_libraries() -> None:
    light = [path for path in FILES if room(path) in LIGHT_ROOMS]
    assert {place(p): found for p in light if (found := HEAVY & {name.split(".")[0] for name in names(p)})} == {}


def test_only_one_file_speaks_distributed() -> None:
    found = {place(path): [name for name in sorted(uses(path)) if COLLECTIVES.match(name)] for path in FILES}
    assert [where for where, used in found.items() if used] == [SPEAKS_DISTRIBUTED]


def test_nothing_is_pickled() -> None:
    """A pickle from a model hub runs code. Neither read nor written, nor allowed in numpy and torch calls."""
    offenders = [(place(path), name) for path in FILES for name in sorted(uses(path)) if PICKLES.match(name)]
    offenders += [
        (place(path), f"{node.arg}={node.value.value}")
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)
        if (node.arg, node.value.value) in {("allow_pickle", True), ("weights_only", False)}
    ]
    assert offenders == []


def test_printing_is_the_command_lines_business() -> None:
    calls = [
        (place(path), node.lineno)
        for path in FILES
        if room(path) != "cli"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) in {"print", "sys.stdout.write"}
    ]
    assert calls == []


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def test_files_and_functions_are_short() -> None:
    """A function that is longer is named above with its reason, and no longer than it is needed there."""
    sizes = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {where: size for where, size in sizes.items() if size > MAX_LINES} == {}
    assert {f"{place(p)}:{f.name}" for p in FILES for f in functions(tree(p)) if length(f) > MAX_FUNCTION} == set(
        LONG_FUNCTIONS
    )


LOOSE = re.compile(r"(dict|Mapping)\[str, Any\]")
PASSED_ON = {
    "adapters/base.py:ForwardKeywords": "keywords of the forward of any architecture, as torch hands them to hooks",
}
"""Where a mapping of values of any type is passed on, and why: another library defines what is in it."""


def loose(path: Path) -> Iterator[str]:
    """Functions, fields of classes and aliases with ``dict[str, Any]``; constants and variables in functions may."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            annotations = [arg.annotation for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
            if any(LOOSE.search(ast.unparse(one)) for one in (*annotations, node.returns) if one is not None):
                yield f"{place(path)}:{node.name}"
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and LOOSE.search(ast.unparse(line.annotation)):
                    yield f"{place(path)}:{node.name}.{ast.unparse(line.target)}"
    for line in tree(path).body:
        if isinstance(line, ast.Assign) and LOOSE.search(ast.unparse(line.value)):
            yield f"{place(path)}:{ast.unparse(line.targets[0])}"


def test_what_passes_between_functions_is_typed() -> None:
    """Records are classes: nothing passes on a mapping of which nobody knows the keys, but for those above."""
    assert {where for path in FILES for where in loose(path)} == set(PASSED_ON)


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


def test_nobody_asks_which_part_it_is() -> None:
    """Behaviour belongs to the part: no ``if part.name == "energy_overlap"``, no look-up by such a name."""
    known = part_names()
    assert {"EnergyOverlap", "energy_overlap", "Orthogonality", "FactorNorm", "factor_norm"} <= set(known)
    offenders = []
    for path in FILES:
        if room(path) == "methods" or place(path) == "parts/__init__.py":
            continue  # methods name the parts they are made of, and parts are offered by name
        foreign = {name for name, home in known.items() if home != place(path)}
        quoted = {n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        named = {dotted(n).split(".")[-1] for n in ast.walk(tree(path))} if room(path) != "parts" else set()
        offenders += [(place(path), name) for name in sorted(foreign & (quoted | named))]
    assert offenders == []


def test_no_file_looks_at_a_class_by_its_name() -> None:
    offenders = [
        (place(path), node.lineno)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare)
        for side in map(dotted, (node.left, *node.comparators))
        if side.endswith("__name__") and side != "__name__"
    ]
    assert offenders == []


FOREIGN = {
    (
        "adapters/dual.py",
        "self.model.config",
    ): "a configuration of transformers: only some kinds of model have the key",
    ("adapters/dual.py", "config"): "the same",
    ("models/environment.py", "base.model.config"): "the same",
    (
        "models/loading.py",
        "processor",
    ): "a tokenizer, or an image processor, which has no template",
    ("models/tokenizer.py", "config"): "the same",
    ("models/tokenizer.py", "place"): "the same",
    ("models/tokens.py", "inner.config"): "the same",
    ("models/weights.py", "config"): "the same",
    ("adapters/osf.py", "self.model"): "a model of transformers: PEFT sets the attribute when it puts an adapter on",
    ("adapters/prompts.py", "body"): "a model of transformers: not every image model has the module",
    ("models/families/frozen.py", "body"): "a model of transformers: decoders have no module of that name",
    ("models/families/pooled.py", "body"): "a model of transformers: not every encoder has a pooler",
    (
        "models/families/pooled.py",
        "model.config",
    ): "a configuration of transformers: some name their width otherwise",
    ("models/families/causal.py", "out"): "an output of transformers: not every model caches",
    ("models/families/causal.py", "cache"): "a cache of transformers, of which there are several kinds",
    ("models/families/causal.py", "layer"): "a layer of such a cache",
    ("models/families/heads.py", "model"): "a model, or what DDP or PEFT wrapped around it",
    ("models/loading.py", "model"): "a model of transformers: names of heads differ, and a flag is set only by PEFT",
    ("models/tokenizer.py", "model"): "a model of transformers: classifiers generate nothing",
    ("models/tokenizer.py", "processor"): "a tokenizer, or an image processor, which has no length",
    ("training/evidence.py", "layer"): "a layer of a model, quantised perhaps, or no linear one",
    ("benchmarks/streams.py", "task"): "whatever the loader of a plug-in returned",
    ("benchmarks/vision_hub.py", "picture"): "a picture of Pillow, or an array",
    ("benchmarks/vision_hub.py", "train.features[place.label]"): "a feature of datasets: only classes have names",
    ("data/images.py", "value"): "whatever a row holds for a picture",
    ("data/tasks.py", "rows"): "rows of datasets, or any iterable",
    ("cli/options.py", "one"): "a parameter of click: only typer's have panels",
    ("cli/options.py", "error"): "an error of click, of any kind",
    ("methods/cards.py", "kind"): "an annotation: not all have names",
    ("core/plugins.py", "module"): "a module that was imported, from a file or not",
    ("core/plugins.py", "error"): "an error of any kind",
    ("core/roles/contract.py", "value"): "a member of a class that is being made",
    ("core/roles/contract.py", "vars(base)[name]"): "the same",
    ("runtime/tracker_media.py", "tracker"): "a callback of transformers for one tracker or another",
    ("runtime/tracker_media.py", "one"): "a module of PEFT, or any other of a model",
    ("runtime/tracker_media.py", "layer"): "a layer of PEFT: only some have a diagonal",
    ("runtime/safe_yaml.py", "yaml"): "PyYAML: its loader in C may be lacking",
    ("runtime/safe_yaml.py", "error"): "an error of PyYAML, of any kind",
}
"""What may lack an attribute that is looked for, and why: all are objects of others, none is one of everlora's."""


def test_only_attributes_of_foreign_objects_may_be_missing() -> None:
    """A misspelt name would be ignored: ours are declared, and nobody looks whether they are there."""
    found = {
        (place(path), ast.unparse(node.args[0]))
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        if (dotted(node.func), len(node.args)) in {("getattr", 3), ("hasattr", 2)}
    }
    assert found == set(FOREIGN)


def test_no_attribute_of_needs_is_looked_up_by_a_name_in_a_string() -> None:
    from dataclasses import fields

    from everlora.core.roles.contract import FORMER_FLAGS, Needs

    flags = {*FORMER_FLAGS, *(one.name for one in fields(Needs))}
    offenders = [
        (place(path), node.lineno)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) in {"getattr", "hasattr"}
        if isinstance(node.args[1], ast.Constant) and node.args[1].value in flags
    ]
    assert offenders == []


def test_docstrings_begin_with_one_sentence_on_one_line() -> None:
    """Lists and editors show the first line alone, so it is a sentence with a full stop, and nothing runs on."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    offenders = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                first, *rest = text.splitlines()
                if not first.endswith(".") or (rest and rest[0].strip()):
                    offenders.append((place(path), getattr(node, "name", "the file"), first))
    assert offenders == []


VERB = re.compile(r"(?!\w+s (?:of|for)\b)[A-Z][a-z-]*s,? ")
"""A first word in the third person; nouns in the plural, which look like it, are mostly *of* or *for* something."""
NO_VERBS = {"A", "An", "All", "How", "The", "What", "Where", "Whether", "Which", "Who"}
STATES = {"testing/benchmarks.py", "testing/checks.py", "testing/metrics.py"}
"""Files of checks, each of which states what must hold."""


def test_first_lines_say_what_is_done() -> None:
    """A module or class *does* something, a function is told what to do; that the word is imperative, ruff knows."""
    offenders = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or not ast.get_docstring(node):
                continue
            first = (ast.get_docstring(node) or "").splitlines()[0]
            if isinstance(node, ast.FunctionDef):
                word = first.split()[0]
                good = place(path) in STATES or (word not in NO_VERBS and re.search(r"([^s]|ss)\W?$", word))
            else:
                title = isinstance(node, ast.Module) and room(path) == "methods" and ": " in first
                good = title or VERB.match(first)
            if not good:
                offenders.append((place(path), getattr(node, "name", "the file"), first))
    assert offenders == []


DIALECT = {"about", "alone", "apart", "asked", "beside", "life", "lived", "lives", "said", "spelt", "theirs", "told"}
"""Words that once were names here, and of which nobody could guess what they named."""


def test_names_are_words_of_the_field() -> None:
    found = [
        (place(path), word, name)
        for path in FILES
        if not place(path).startswith("benchmarks/synthetic/")  # grammars, whose names are of what texts say
        for node in ast.walk(tree(path))
        for name in _given_names(node)
        for word in sorted(DIALECT & set(name.lower().split("_")))
    ]
    assert found == []


def _given_names(node: ast.AST) -> list[str]:
    """The names that a node gives to something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return [node.attr] if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) else []
