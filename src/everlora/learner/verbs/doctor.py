"""Looks at a machine and a learner, and says what to do about what is amiss."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from everlora.archive.committed import read_stages
from everlora.archive.folder import read_run
from everlora.archive.outcome import Outcome
from everlora.archive.records import Environment
from everlora.archive.schema import Record, read_json
from everlora.core.errors import EverloraError
from everlora.models.names import check_there
from everlora.runtime import hub
from everlora.runtime.sizes import size

PACKAGES = ("everlora", "torch", "transformers", "peft", "accelerate")
EXTRAS = {
    "gguf": "weights in GGUF files (everlora[gguf])",
    "PIL": "pictures (everlora[vision])",
    "openpyxl": "Excel files (everlora[excel])",
    "altair": "pages and figures (everlora[report])",
    "torchao": "base models in 8 bits (everlora[int8])",
    "bitsandbytes": "base models in 4 bits, on GPUs",
    "vllm": "serving",
}
LITTLE = 5e9
"""Bytes of free disk below which a learner may soon be unable to write."""
State = Literal["good", "note", "bad"]


class Finding(Record):
    """Holds what was looked at, how it is, and what to do where it is not good."""

    what: str
    state: State
    detail: str
    cure: str | None = None


class Health(Outcome):
    """Holds all findings."""

    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Return whether nothing is bad."""
        return all(one.state != "bad" for one in self.findings)


def doctor(path: Path | None = None) -> Health:
    """Look at this machine, and at a learner's folder if one is named; nothing is loaded and nothing is changed."""
    found = [_machine(), _device(), *_extras(), _hub()]
    if path is not None:
        found += _learner(path)
    return Health(findings=found)


def _machine() -> Finding:
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return Finding(what="machine", state="good", detail=f"Python {platform.python_version()}; {packages}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _device() -> Finding:
    import torch

    count = torch.get_num_threads()
    threads = f"{count} thread{'' if count == 1 else 's'}"
    if torch.cuda.is_available():
        return Finding(what="device", state="good", detail=f"{torch.cuda.get_device_name(0)}; {threads}")
    if torch.backends.mps.is_available():
        return Finding(what="device", state="good", detail=f"mps; {threads}")
    cure = "small models only: 100 steps of a model of 135 M parameters take minutes here"
    return Finding(what="device", state="note", detail=f"no GPU; {threads}", cure=cure)


def _extras() -> list[Finding]:
    there = [name for name in EXTRAS if find_spec(name)]
    missing = "; ".join(f"{name}: {use}" for name, use in EXTRAS.items() if name not in there)
    detail = f"{', '.join(there) or 'none'} of {', '.join(EXTRAS)}"
    return [Finding(what="extras", state="good", detail=detail, cure=f"for {missing}" if missing else None)]


def _hub() -> Finding:
    why = hub.unreachable()
    if why is None:
        return Finding(what="hub", state="good", detail="can be reached")
    cure = "base models must be packaged, in the cache, or a folder"
    return Finding(what="hub", state="note", detail=why, cure=cure)


def _learner(path: Path) -> list[Finding]:
    """Look at a learner's folder: is it one, is its base at hand, is there room to write."""
    found = []
    try:
        record, done = read_run(path), read_stages(path)
        named = ", ".join(stage.facts.name for stage in done) or "nothing yet"
        detail = f"{record.composition.name} on {record.settings.model}; learned: {named}"
        found.append(Finding(what="learner", state="good", detail=detail))
        waiting = [stage.facts.name for stage in done if not stage.evaluated]
        if waiting:
            cure = f"everlora eval {path}, or the command that taught it"
            found.append(
                Finding(what="evaluation", state="note", detail=f"{waiting[-1]} is not scored yet", cure=cure)
            )
        found.append(_base(record.settings.model))
        found += _versions(path)
    except EverloraError as error:
        there = (path / "run.yaml").exists() or (path / "tasks").exists()
        cure = f"everlora verify {path} --repair" if there else f"everlora init {path} makes one"
        found.append(Finding(what="learner", state="bad", detail=str(error), cure=cure))
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    full = free < LITTLE
    room = Finding(
        what="disk",
        state="note" if full else "good",
        detail=f"{size(free)} are free",
        cure="make room before the next task" if full else None,
    )
    return [*found, room]


def _base(model: str) -> Finding:
    try:
        check_there(model)
    except EverloraError as error:
        return Finding(what="base model", state="bad", detail=str(error), cure="say where it is now with --model")
    return Finding(what="base model", state="good", detail=f"{model} is here, or on the hub")


def _versions(path: Path) -> list[Finding]:
    """Compare the packages that a learner was last used with to those that are here."""
    then = read_json(Environment, path / "environment.json").packages
    other = [f"{name} {old} → {_version(name)}" for name, old in then.items() if old and _version(name) != old]
    if not other:
        return []
    cure = "scores carry the versions they were made with; the next evaluation notes these"
    return [Finding(what="versions", state="note", detail=", ".join(other), cure=cure)]
