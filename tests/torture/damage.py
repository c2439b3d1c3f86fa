"""Every kind of damage to every file of a finished learner: ``python tests/torture/damage.py`` counts them."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from everlora.archive.folder import RunFolder, read_matrix, read_run, stages
from everlora.archive.history import read_history
from everlora.archive.parity import PARITY, read_parity
from everlora.archive.verify import inspect
from everlora.core.errors import EverloraError
from everlora.learner.opened import create
from everlora.learner.same_base import check_base
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.verify import keep_parity
from everlora.models.loading import Loaded
from everlora.runtime.progress import Progress
from torture.acts import FIRST, SECOND, SETTINGS

FLIPS = 3
UNREAD = ("README.md", "tokenizer.json", "tokenizer_config.json")
"""Files that no verb reads: they are for people, and for other tools."""
Damage = Callable[[Path], bytes | None]


def learner(path: Path, seed: int) -> Path:
    """Make a learner of two tasks, with a parity."""
    create(path, {**SETTINGS, "seed": seed}, by=f"somebody {seed}")
    for task in (FIRST, SECOND):
        learn(path, task, progress=Progress())
    keep_parity(path)
    return path


def one_value(file: Path) -> bytes | None:
    """Return a file with one value changed, as somebody would who edits it."""
    if file.suffix == ".safetensors":
        tensors = load_file(file)
        name = sorted(tensors)[-1]
        tensors[name].view(-1)[0] += 0.5
        with tempfile.TemporaryDirectory() as place:
            save_file(tensors, f"{place}/changed", metadata={"format": "pt"})
            return Path(f"{place}/changed").read_bytes()
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".yaml":
        content = yaml.safe_load(text)
        content["settings"]["seed"] = 12345
        return yaml.safe_dump(content).encode()
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        _change(rows[-1])
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.name == "README.md":
        return text.replace("ella", "else", 1).encode()
    if file.name == PARITY:
        return None
    content = json.loads(text)
    _change(content)
    return json.dumps(content, indent=1).encode()


def _change(content: Any) -> bool:
    """Change the first number or text that is found, however deep; the schema aside, which is a matter of its own."""
    items = list(content.items() if isinstance(content, dict) else enumerate(content))
    for at, value in items:
        if at in ("schema", "digest"):
            continue
        if isinstance(value, dict | list) and _change(value):
            return True
        if isinstance(value, bool):
            content[at] = not value
            return True
        if isinstance(value, int | float):
            content[at] = value + 1
            return True
        if isinstance(value, str):
            content[at] = value + "x"
            return True
    return False


def harms(file: Path, root: Path, other: Path) -> Iterator[tuple[str, bytes | None]]:
    """Give what a file is after each kind of damage; None where it is gone."""
    data, name = file.read_bytes(), file.relative_to(root)
    yield "half", data[: len(data) // 2]
    yield "empty", b""
    yield "deleted", None
    draw = random.Random(str(name))
    for _ in range(FLIPS if data else 0):
        at = draw.randrange(len(data))
        yield "one bit flipped", data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    if (changed := one_value(file)) is not None:
        yield "one value changed", changed
    twins = {"01-colors": "02-moods", "02-moods": "01-colors"}
    if name.parts[0] == "tasks":
        twin = root.joinpath("tasks", twins[name.parts[1]], *name.parts[2:])
    else:
        twin = root / "tasks" / "01-colors" / name
    if twin.is_file():
        yield "swapped with another task's", twin.read_bytes()
    if (other / name).is_file():
        yield "from another run", (other / name).read_bytes()


def uses(path: Path, file: str, base: Loaded) -> None:
    """Read a file as the verbs do that use it."""
    if file == PARITY:
        read_parity(path / PARITY, read_run(path).id)  # verify --repair
    elif file == "history.jsonl":
        read_history(path)  # history
    elif file == "matrix.json":
        read_matrix(path)  # status, compare, export
        stages(path)
    else:
        RunFolder(path, read_run(path), resume=True, write=False).stages()  # ask, learn, eval
        check_base(base, path)
        stages(path)  # inspect, export


def tried(folder: Path, base: Loaded) -> tuple[Counter[str], Counter[str], Counter[str], Counter[str], list[str]]:
    """Count by kind of damage: tried, noticed by verify, read by a verb, refused by it; list what went unnoticed."""
    root, other = learner(folder / "one", 0), learner(folder / "other", 1)
    count: tuple[Counter[str], ...] = (Counter(), Counter(), Counter(), Counter())
    missed: list[str] = []
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    for file in files:
        data, name = file.read_bytes(), file.relative_to(root).as_posix()
        for kind, harmed in harms(file, root, other):
            if harmed == data or (name, harmed) == (PARITY, None):
                continue  # another run may say the same; and a learner without a parity is sound
            file.unlink() if harmed is None else file.write_bytes(harmed)
            count[0][kind] += 1
            noticed = bool(inspect(root).problems)
            count[1][kind] += noticed
            missed += [] if noticed else [f"verify: {name} {kind}"]
            if name not in UNREAD:
                count[2][kind] += 1
                refused = _refuses(root, name, base)
                count[3][kind] += refused
                missed += [] if refused else [f"verb: {name} {kind}"]
            file.write_bytes(data)
    assert not inspect(root).problems
    return (*count, missed)  # type: ignore[return-value]


def _refuses(root: Path, name: str, base: Loaded) -> bool:
    try:
        uses(root, name, base)
    except EverloraError:
        return True
    return False


def main() -> int:
    import everlora

    place = Path(tempfile.mkdtemp(prefix="everlora-damage-"))
    try:
        tries, seen, used, refused, missed = tried(place, everlora.load("tiny-llama"))
    finally:
        shutil.rmtree(place)
    print("| damage | tried | noticed by verify | in files that verbs read | refused by them |\n|---|--:|--:|--:|--:|")
    for kind in tries:
        print(f"| {kind} | {tries[kind]} | {seen[kind]} | {used[kind]} | {refused[kind]} |")
    print(*missed, sep="\n", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
