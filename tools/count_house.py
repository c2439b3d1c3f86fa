"""Count what the house promises: docstrings, comments, flags on parts, files and lines.

    python tools/count_house.py [FOLDER]        the package by default; another checkout's ``src/everlora`` as well

Docstring and comment shares are lines per line of code (blank lines, docstrings and comment lines are no code). A line
with code and a comment counts as both.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

PRAGMA = re.compile(r"#\s*(noqa|type:|fmt:|pragma)")
"""Comments for tools, which tell a reader nothing."""
PACKAGE = Path(__file__).parents[1] / "src" / "everlora"
PARTS = {"part", "rule", "penalty", "transform"}
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
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
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
        if named and isinstance(node.args[0], ast.Name) and node.args[0].id in PARTS:
            found["getattr on parts"] += 1
    return found


def main(package: Path) -> None:
    """Print the counts of a package."""
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
    print(f"getattr on parts: {total['getattr on parts']}")
    print(f"longest file: {longest}, {files[longest].count(chr(10))} lines")
    print("files per room: " + ", ".join(f"{room} {n}" for room, n in sorted(rooms.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
