"""The run folder: what a learner leaves behind, and all it needs to go on.

run.yaml            the resolved settings, the composition of the method, where it is from if it is a user's own
                    (package and version, or file and hash), the id of the run
environment.json    versions of Python and packages, platform, threads, processes, precision, model family
matrix.json         the accuracy matrix, primary result; metrics derived from it; hash of the protocol, and a
                    fingerprint (backend, precision, versions) of each row
README.md           model card
before/             where it was asked for: what the base model answered before the first task, and its general ability
adapter_config.json  adapter_model.safetensors
                    the learner as one PEFT adapter; absent where nothing is trained
tokenizer*, chat_template.jinja, or preprocessor_config.json for images
                    what turns rows into the model's input
tasks/01-name/      one folder per task, itself a PEFT adapter folder; counts only with its COMMIT
    predictions.jsonl                every answer
    training.jsonl  modules.jsonl    loss; per module: penalty, its share of the gradient, update norm
    COMMIT                           row of the matrix and its fingerprint (backend, precision, versions), labels,
                                     digests of the data, metrics and rows left out where that applies, hashes of the
                                     files beside it
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from everlora.archive.atomic import staged, write_json, write_text
from everlora.archive.fingerprints import of_rows
from everlora.archive.references import reference_scores, references
from everlora.core.errors import FolderError
from everlora.data.task import digest_of_order
from everlora.metrics.matrix import measured
from everlora.metrics.scores import ScoreMatrix

SCHEMA = 2
COMMIT = "COMMIT"
BEFORE = "before"
APART = ("data_dir", "method", "protocol", "tasks")
"""Settings that do not tell one run from another: where the data lie, how method and protocol are spelt, and which
tasks are followed: a life may grow, and every task that was learned is compared by itself."""
NOTED = ("origin", "protocol")
"""Entries of run.yaml beside the settings that do not either: where a method of a user's own is from, and the hash of
the protocol that the settings come to."""


def identity(facts: Mapping[str, Any]) -> str:
    """Hash that tells one run from another.

    Where the data lie is no part of it: what they are is checked per task. Neither is the spelling of the method:
    ``OLoRA`` and ``o-lora(lam=0.5)`` may be one method, and the entry ``composition`` says which.
    """
    # What is not set is no part of it either: a later version may have more to set.
    settings = {k: v for k, v in facts.get("settings", {}).items() if k not in APART and v is not None}
    if isinstance(how := settings.get("evaluation"), Mapping):
        settings["evaluation"] = {k: v for k, v in how.items() if v is not None}
    facts = {**{k: v for k, v in facts.items() if k not in NOTED}, "settings": settings}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Committed:
    """A finished stage as read from disk."""

    path: Path
    facts: dict[str, Any]


class RunFolder:
    """Access to one run folder.

    Args:
        path: the folder; made if missing.
        facts: what identifies the run; a folder that holds a run with other facts is refused.
        resume: go on in a folder that holds this same run.
        write: make the folder and write run.yaml; one of several processes does, the others read.

    Raises:
        FolderError: the folder holds another run, something else, or a damaged task.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, resume: bool = False, write: bool = True) -> None:
        self.path = path
        self.facts = dict(facts)
        self.id = identity(facts)
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file; --out must name a folder")
        if path.is_dir() and any(path.iterdir()):
            self._check(resume)
        if not write:
            return
        try:
            (path / "tasks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(f"cannot make the folder {path}: {error.strerror}") from error
        write_text(path / "run.yaml", yaml.safe_dump({"schema": SCHEMA, "id": self.id, **self.facts}, sort_keys=False))

    def _check(self, resume: bool) -> None:
        spec = self.path / "run.yaml"
        if not spec.is_file():
            raise FolderError(f"{self.path} is not empty and holds no run of everlora; choose another --out")
        try:
            there = yaml.safe_load(spec.read_text(encoding="utf-8"))
            other = there["id"]
        except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
            raise FolderError(f"{spec} is damaged; choose another --out") from None
        if not any(self.path.glob(f"tasks/*/{COMMIT}")):
            return  # nothing was learned here yet: a first try that failed may be mended and started again
        if other != self.id:
            changed = ", ".join(_differing(self.facts, there)) or "settings"
            raise FolderError(f"{self.path} holds another run (different: {changed}); choose another --out")
        if not resume:
            raise FolderError(f"{self.path} holds this run already; pass --resume to go on, or choose another --out")

    def stages(self) -> list[Committed]:
        """Finished stages in order.

        Raises:
            FolderError: a file of a finished stage is missing or changed.
        """
        found = stages(self.path)
        for stage in found:
            if stage.facts["run"] != self.id:
                raise FolderError(f"{stage.path} was learned by another run than {self.path}; choose another --out")
        return found

    @contextmanager
    def commit(self, number: int, name: str, facts: dict[str, Any]) -> Iterator[Path]:
        """Give a folder to fill; when the block ends it is hashed, sealed and put in its place at once."""
        with self._sealed(self.path / "tasks" / f"{number:02d}-{name}", number, name, facts) as folder:
            yield folder

    @contextmanager
    def commit_before(self, facts: dict[str, Any]) -> Iterator[Path]:
        """The same for what was measured before the first task."""
        with self._sealed(self.path / BEFORE, 0, BEFORE, facts) as folder:
            yield folder

    def before(self) -> Committed | None:
        """What was measured before the first task of this run, if anything was.

        Raises:
            FolderError: a file of it is missing or changed.
        """
        place = self.path / BEFORE
        found = _read(place) if (place / COMMIT).is_file() else None
        return found if found and found.facts["run"] == self.id else None

    @contextmanager
    def _sealed(self, target: Path, number: int, name: str, facts: dict[str, Any]) -> Iterator[Path]:
        if target.exists():
            shutil.rmtree(target)
        with staged(target) as folder:
            yield folder
            files = {p.name: _sha(p) for p in sorted(folder.iterdir())}
            write_json(
                folder / COMMIT,
                {"schema": SCHEMA, "run": self.id, "number": number, "name": name, "files": files, **facts},
            )

    def matrix_content(self, matrix: ScoreMatrix, extra: Mapping[str, Any]) -> dict[str, Any]:
        """What matrix.json says: every metric, undefined where its cells or references are not there."""
        before, done = self.before(), self.stages()
        found = reference_scores(
            matrix.tasks, before.facts if before else {}, [stage.facts for stage in done], self.path
        )
        return {
            "schema": SCHEMA,
            "id": self.id,
            "tasks": list(matrix.tasks),
            "counts": list(matrix.counts),
            "matrix": [list(row) for row in matrix.cells],
            "metrics": measured(matrix, references(found)),
            **({"protocol": self.facts["protocol"]} if "protocol" in self.facts else {}),
            "fingerprints": of_rows([stage.facts for stage in self.stages()]),
            **found,
            **extra,
        }

    def write_matrix(self, matrix: ScoreMatrix, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Write matrix.json and return its content."""
        content = self.matrix_content(matrix, extra)
        write_json(self.path / "matrix.json", content)
        return content


def stages(path: Path) -> list[Committed]:
    """Finished stages of the run in ``path``, in order.

    Raises:
        FolderError: a file of a finished stage is missing or changed.
    """
    # A process killed just before the renaming leaves a sealed folder under its hidden name: not in place.
    sealed = [p.parent for p in (path / "tasks").glob(f"[0-9]*/{COMMIT}")]
    # By number: 100 comes after 99, and not, as a text, before 11.
    return [_read(path) for path in sorted(sealed, key=lambda p: p.name.partition("-")[0].zfill(9))]


def of_tasks(done: Sequence[Committed], tasks: Sequence[str]) -> dict[str, Any]:
    """What a reader of the scores must know of the tasks: which order of which data, other metrics, rows left out."""
    facts: dict[str, dict[str, Any]] = {"data": {}, "metric": {}, "left_out": {}}
    for stage in done:
        for key, of_task in facts.items():
            of_task.update(stage.facts.get(key, {}))
    digest = digest_of_order([(name, facts["data"][name]) for name in tasks])
    return {"order_digest": digest, **{key: facts[key] for key in ("metric", "left_out") if facts[key]}}


def identified(path: Path) -> dict[str, Any]:
    """What run.yaml says: settings, composition, id.

    Raises:
        FolderError: there is no run of everlora, or its file is damaged.
    """
    spec = path / "run.yaml"
    if not spec.is_file():
        raise FolderError(f"{path} holds no run of everlora; name the folder that was given as --out")
    try:
        there = yaml.safe_load(spec.read_text(encoding="utf-8"))
        _ = there["id"], there["composition"], there["settings"]["method"] + ""
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise FolderError(f"{spec} is damaged, or of an older everlora; restore it from a copy") from None
    return dict(there)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the innermost entries of ``a`` that ``b`` does not share, each of them once."""
    names: list[str] = []
    for key, value in a.items():
        other = b.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            names += _differing(value, other)
        elif key == "penalties" and isinstance(other, list) and _parts(value) == _parts(other):
            for mine, theirs in zip(value, other, strict=True):
                names += _differing(mine, theirs)  # one method with two strengths: "lam" says more than "penalties"
        elif value != other and key not in (*APART, *NOTED):
            names.append("method" if key == "name" else key)
    return list(dict.fromkeys(names))


def _parts(penalties: list[Any]) -> list[Any]:
    return [penalty.get("part") if isinstance(penalty, Mapping) else None for penalty in penalties]


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> Committed:
    try:
        facts = json.loads((path / COMMIT).read_text(encoding="utf-8"))
        _ = facts["run"], facts["name"], facts["number"]
        for name, sha in facts["files"].items():
            if not (path / name).is_file() or _sha(path / name) != sha:
                raise FolderError(f"{path / name} is missing or was changed after it was written; restore the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, no UTF-8, or another shape
        raise FolderError(f"{path / COMMIT} is damaged, or of an older everlora; restore it from a copy") from error
    return Committed(path, facts)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
