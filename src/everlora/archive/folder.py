"""Reads and writes the run folder: what a learner leaves behind, and all it needs to go on.

run.yaml            the resolved settings, the composition of the method, where it is from if it is a user's own
                    (package and version, or file and hash), the id of the run
environment.json    versions of Python and packages, platform, threads, processes, precision, model family, digests
                    of the base model's files
matrix.json         the accuracy matrix, primary result; metrics derived from it; hash of the protocol, and a
                    fingerprint (backend, precision, versions) of each row; hashes of the adapter at the root
README.md           model card
before/             if settings want it: what the base model answered before the first task, and its general ability
adapter_config.json  adapter_model.safetensors
                    the learner as one PEFT adapter; absent where nothing is trained
tokenizer*, chat_template.jinja, or preprocessor_config.json for images
                    what turns rows into the model's input
tasks/01-name/      one folder per task, itself a PEFT adapter folder; counts only with its COMMIT
    predictions.jsonl                every answer
    training.jsonl  modules.jsonl    loss; per module: penalty, its share of the gradient, update norm
    COMMIT                           row of the matrix and its fingerprint (backend, precision, versions), labels,
                                     digests of the data, metrics and rows left out where that applies, hashes of the
                                     other files
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from everlora.archive.atomic import staged
from everlora.archive.fingerprints import fingerprints_of
from everlora.archive.identity import NOT_IDENTIFYING, SPLIT, RunRecord, identity, whole_batch
from everlora.archive.records import Baseline, BaselineFacts, Commit, StageFacts
from everlora.archive.references import reference_scores, references
from everlora.archive.results import LearnerFacts, MatrixRecord
from everlora.archive.root import MATRIX, check_root, root_files, sha256
from everlora.archive.schema import Record, loaded, read_json, restored, write
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject
from everlora.data.task import digest_of_order
from everlora.metrics.matrix import measured
from everlora.metrics.scores import ScoreMatrix

COMMIT = "COMMIT"
BEFORE = "before"
ROWS = "rows of a step, over all processes"
NOTED = ("id", "origin", "protocol")
"""Entries of run.yaml that are no difference by themselves: they follow from the others."""


@dataclass(frozen=True)
class Committed:
    """Holds a finished stage as read from disk: its folder, and what its COMMIT says."""

    path: Path
    facts: Commit


@dataclass(frozen=True)
class CommittedBaseline:
    """Holds what was measured before the first task, as read from disk."""

    path: Path
    facts: Baseline


class RunFolder:
    """Gives access to one run folder.

    Args:
        path: the folder; made if missing.
        record: what identifies the run; a folder that holds another run is refused.
        resume: go on in a folder that holds this same run.
        write: make the folder and write run.yaml; one of several processes does, the others read.

    Raises:
        FolderError: the folder holds another run, something else, or a damaged task.
    """

    def __init__(self, path: Path, record: RunRecord, *, resume: bool = False, write: bool = True) -> None:
        self.path, self.record, self.id = path, record, record.id
        if str(path).encode(errors="ignore").decode() != str(path):  # libraries write nothing to such a place
            raise FolderError(f"the name of the folder {path} is not UTF-8; choose another --out")
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file; --out must name a folder")
        if path.is_dir() and any(path.iterdir()):
            self._check(resume)
        if write:
            self._make()

    def _make(self) -> None:
        try:
            (self.path / "tasks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(f"cannot make the folder {self.path}: {error.strerror}") from error
        write(self.path / "run.yaml", self.record)

    def _check(self, resume: bool) -> None:
        """Refuse a folder that is not this run's to go on in."""
        place = self.path / "run.yaml"
        if not place.is_file():
            raise FolderError(f"{self.path} is not empty and holds no run of everlora; choose another --out")
        there = loaded(place)
        if "id" not in there:
            raise FolderError(f"{place} is damaged; choose another --out")
        if not any(self.path.glob(f"tasks/*/{COMMIT}")):
            return  # nothing was learned here yet: a first try that failed may be mended and started again
        if there["id"] != self.id:
            self._take_id(place, there)
        if there["id"] != self.id:
            changed = ", ".join(_differing(_comparable(self.record.plain()), _comparable(there))) or "settings"
            raise FolderError(f"{self.path} holds another run (different: {changed}); choose another --out")
        if not resume:
            raise FolderError(f"{self.path} holds this run already; pass --resume to go on, or choose another --out")
        check_root(self.path, complete=False)  # what is missing is made again

    def _take_id(self, place: Path, there: JsonObject) -> None:
        """Take the id that an older everlora gave this very run, when it counted the rows of a step otherwise."""
        try:
            known = restored(RunRecord, place, there)
        except FolderError:
            return  # it is another run, and what differs is named
        if identity(known.settings, known.composition, known.processes) == self.id:
            self.id, self.record = known.id, self.record.model_copy(update={"id": known.id})

    def stages(self) -> list[Committed]:
        """Return the finished stages of the run in ``path``, in order.

        Raises:
            FolderError: a file of a finished stage is missing or changed.
        """
        found = _stages(self.path)
        for stage in found:
            if stage.facts.run != self.id:
                raise FolderError(f"{stage.path} was learned by another run than {self.path}; choose another --out")
        return found

    @contextmanager
    def commit(self, number: int, name: str, facts: StageFacts) -> Iterator[Path]:
        """Give a folder to fill; when the block ends it is hashed, sealed and put in its place at once."""
        with _empty(self.path / "tasks" / f"{number:02d}-{name}") as folder:
            yield folder
            seal: dict[str, object] = {"run": self.id, "number": number, "name": name, "files": _hashes(folder)}
            # Written last, with the hashes of all else: without it, or with other files, the folder does not count.
            sealed = Commit.model_validate({**seal, **_fields(facts)})
            write(folder / COMMIT, sealed)

    @contextmanager
    def commit_before(self, facts: BaselineFacts) -> Iterator[Path]:
        """Give a folder to fill with what was measured before the first task; see `commit`."""
        with _empty(self.path / BEFORE) as folder:
            yield folder
            seal: dict[str, object] = {"run": self.id, "number": 0, "name": BEFORE, "files": _hashes(folder)}
            write(folder / COMMIT, Baseline.model_validate({**seal, **_fields(facts)}))

    def before(self) -> CommittedBaseline | None:
        """Return what was measured before the first task of this run, if anything was.

        Raises:
            FolderError: a file of it is missing or changed.
        """
        place = self.path / BEFORE
        if not (place / COMMIT).is_file():
            return None
        facts = read_json(Baseline, place / COMMIT)
        _verify(place, facts.files)
        return CommittedBaseline(place, facts) if facts.run == self.id else None

    def matrix_record(self, matrix: ScoreMatrix, learner: LearnerFacts) -> MatrixRecord:
        """Return what matrix.json says: every metric, undefined where its cells or references are not there."""
        before, committed = self.before(), [stage.facts for stage in self.stages()]
        found = reference_scores(matrix.tasks, before.facts if before else None, committed, self.path)
        data = {name: digest for commit in committed for name, digest in commit.data.items()}
        known = set(matrix.tasks) <= set(data)
        return MatrixRecord(
            id=self.id,
            tasks=list(matrix.tasks),
            counts=list(matrix.counts),
            matrix=[list(row) for row in matrix.cells],
            metrics=measured(matrix, references(found)),
            fingerprints=fingerprints_of(committed),
            order_digest=digest_of_order([(name, data[name]) for name in matrix.tasks]) if known else None,
            metric={name: metric for commit in committed for name, metric in commit.metric.items()},
            left_out={name: rows for commit in committed for name, rows in commit.left_out.items()},
            label_rows={name: rows for commit in committed for name, rows in commit.label_rows.items()},
            root=root_files(self.path, len(committed)),
            **_fields(found),
            **_fields(learner),
        )

    def write_matrix(self, matrix: ScoreMatrix, learner: LearnerFacts) -> MatrixRecord:
        """Write matrix.json and return what it says."""
        record = self.matrix_record(matrix, learner)
        write(self.path / MATRIX, record)
        return record


def stages(path: Path) -> list[Committed]:
    """Return the finished stages in order.

    Raises:
        FolderError: a file of a finished stage, or of the learner at the root, is missing or changed.
    """
    found = _stages(path)
    check_root(path)
    return found


def _stages(path: Path) -> list[Committed]:
    # A process killed just before the renaming leaves a sealed folder under its hidden name: not in place.
    sealed = [p.parent for p in (path / "tasks").glob(f"[0-9]*/{COMMIT}")]
    # By number: 100 comes after 99, and not, as a text, before 11.
    return [_read(path) for path in sorted(sealed, key=lambda p: p.name.partition("-")[0].zfill(9))]


def read_run(path: Path) -> RunRecord:
    """Read run.yaml: settings, composition, id.

    Raises:
        FolderError: there is no run of everlora, or its file is damaged or of a newer everlora.
    """
    place = path / "run.yaml"
    if not place.is_file():
        raise FolderError(f"{path} holds no run of everlora; name the folder that was given as --out")
    return restored(RunRecord, place, loaded(place))


def read_matrix(path: Path) -> MatrixRecord:
    """Read matrix.json of the run in ``path``.

    Raises:
        FolderError: it is not there, damaged, or of a newer everlora.
    """
    return read_json(MatrixRecord, path / MATRIX)


def _comparable(record: JsonObject) -> JsonObject:
    """Return a record of a run with the rows of a step under a name of their own, however they are split."""
    settings = record.get("settings")
    train = settings.get("train") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(train, dict):
        return record
    found = dict(whole_batch(train, int(str(record.get("processes", 1)))))
    rows = {ROWS: [found.pop(name, None) for name in SPLIT]}
    shown = {key: value for key, value in record.items() if key != "processes"}
    return {**shown, "settings": {**settings, "train": {**found, **rows}}}


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Return the names of the innermost entries of ``a`` that ``b`` does not share, each of them once."""
    names: list[str] = []
    for key, value in a.items():
        other = b.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            names += _differing(value, other)
        elif key == "penalties" and isinstance(value, list) and isinstance(other, list) and _same_parts(value, other):
            for this, that in zip(value, other, strict=True):
                names += _differing(this, that)  # one method with two strengths: "lam" says more than "penalties"
        elif value != other and key not in (*NOT_IDENTIFYING, *NOTED):
            names.append("method" if key == "name" else key)
    return list(dict.fromkeys(names))


def _same_parts(these: Sequence[object], those: Sequence[object]) -> bool:
    first, second = ([p.get("part") if isinstance(p, Mapping) else None for p in parts] for parts in (these, those))
    return first == second


def _fields(record: Record) -> dict[str, object]:
    """Return the fields of a record as they are, to make a record of which they are a part."""
    return {name: getattr(record, name) for name in type(record).model_fields}


@contextmanager
def _empty(target: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``target`` in one step, when the block ends without an error."""
    # What is here was never committed, or is another run's measurement; a folder is not renamed onto a full one.
    if target.exists():
        shutil.rmtree(target)
    with staged(target) as folder:
        yield folder


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def _verify(folder: Path, files: Mapping[str, str]) -> None:
    for name, sha in files.items():
        if not (folder / name).is_file() or sha256(folder / name) != sha:
            raise FolderError(f"{folder / name} is missing or was changed after it was written; restore the folder")


def _read(path: Path) -> Committed:
    facts = read_json(Commit, path / COMMIT)
    if not path.name.startswith(f"{facts.number:02d}-"):
        raise FolderError(f"{path / COMMIT} is of task {facts.number} and not of its folder's; restore the folder")
    _verify(path, facts.files)
    return Committed(path, facts)
