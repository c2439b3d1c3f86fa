"""Edits records of a run folder by hand, and gives them the digest of what they say now.

So a test reaches what stands behind the digest: somebody who knew how to make one, or a fault of the writer's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from everlora.archive.committed import read_stages
from everlora.archive.manifest import seal, write_manifest


def read(path: Path) -> dict[str, Any]:
    """What stands in a JSON or YAML file, its digest included."""
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Let ``change`` edit what stands in a file; without ``sealed`` the digest stays that of before."""
    content = read(path)
    change(content)
    if sealed and content.get("schema", 1) >= 4:
        content.pop("digest", None)
        text = json.dumps(content, sort_keys=True, default=str)
        content["digest"] = hashlib.sha256(text.encode()).hexdigest()
    text = yaml.safe_dump(content, sort_keys=False) if path.suffix == ".yaml" else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def update(path: Path, **entries: Any) -> None:
    """Replace entries of a record, and seal it again."""
    edit(path, lambda content: content.update(entries))


def relist(path: Path, run: str | None = None) -> None:
    """Write which tasks a folder has, as they are now: what a list would notice is not what is tried."""
    stages = read_stages(path, hashes=False)
    seals = [seal(stage.path, stage.evaluation) for stage in stages]
    write_manifest(path, run or str(read(path / "run.yaml")["id"]), seals, complete=False)
