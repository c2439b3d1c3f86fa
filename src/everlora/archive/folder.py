"""Reads and writes the run folder: what a learner leaves behind, and all it needs to go on.

run.yaml            the resolved settings, the composition of the method, where it is from if it is a user's own
                    (package and version, or file and hash), the id of the run
environment.json    versions of Python and packages, platform, threads, processes, precision; the base model's files
matrix.json         the accuracy matrix, primary result; metrics derived from it; hash of the protocol, and a
                    fingerprint (backend, precision, versions) of each row; hashes of the adapter at the root
README.md           model card
before/             if settings want it: what the base model answered before the first task, and its general ability
adapter_config.json  adapter_model.safetensors
                    the learner as one PEFT adapter; absent where nothing is trained
tokenizer*, chat_template.jinja, or preprocessor_config.json for images
                    what turns rows into the model's input
tasks/01-name/      one folder per task, itself a PEFT adapter folder; counts only with its COMMIT
    training.jsonl  modules.jsonl    loss; per module: penalty, its share of the gradient, update norm
    run.yaml  environment.json       copies of those at the root
    COMMIT                           card of the task, who taught it and when, digests of the data, labels, metrics and
                                     rows left out where that applies, hashes of the other files
    evaluation-1/                    how it was scored when it was learned; the highest number counts
        predictions.jsonl            every answer
        COMMIT                       row of the matrix and its fingerprint, hash of the answers
MANIFEST            the tasks in order, by the hashes of their COMMITs; hashes of the files at the root
undone/1/           what a rollback or compaction took away: folders of tasks, and files of the root of that time

A task is committed when it is trained, and its evaluation when it is evaluated; each is in place at once or not at
all. Every YAML and JSON file here has a hash of itself. See docs/format.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from everlora.archive.atomic import explained, recover, staged, write_text
from everlora.archive.commits import Baseline, BaselineFacts, Commit, Evaluation, Scored, StageFacts
from everlora.archive.committed import (
    EVALUATION,
    Committed,
    CommittedBaseline,
    folder_name,
    listed,
    newest_evaluation,
    read_stages,
    sweep_left,
    verify_files,
)
from everlora.archive.differences import differing_settings
from everlora.archive.exchange import complete_exchange
from everlora.archive.fingerprints import fingerprints_of
from everlora.archive.held import HeldStages
from everlora.archive.history import HISTORY
from everlora.archive.identity import RunRecord, identity
from everlora.archive.lock import writing
from everlora.archive.manifest import BEFORE, COMMIT, is_begun, is_new, number_of, read_manifest
from everlora.archive.references import reference_scores, references
from everlora.archive.results import LearnerFacts, MatrixRecord
from everlora.archive.root import MATRIX, check_root, root_files, sha256
from everlora.archive.schema import Record, loaded, read_json, restored, write
from everlora.core.errors import FolderError
from everlora.core.plain import JsonObject
from everlora.data.stream import digest_of_order
from everlora.metrics.matrix import measured
from everlora.metrics.scores import ScoreMatrix

RUN, ENVIRONMENT = "run.yaml", "environment.json"


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
        if not is_new(path) and not (path / RUN).is_file():
            raise FolderError(f"{path} is not empty and holds no run of everlora; choose another --out")
        self._left: list[str] = []
        self._stages = HeldStages(path, record.id)
        with writing(path, self._left.append) if write else nullcontext():
            if write:
                complete_exchange(path)
            if not is_new(path):
                self._check(resume)
            if write:
                self._make()

    @contextmanager
    def writing(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Keep other processes from writing to the folder; ``tell`` is given what an earlier one has left.

        Raises:
            FolderError: another process writes to it, or has made it another learner's since it was opened.
        """
        with writing(self.path, tell):
            complete_exchange(self.path)
            while self._left:  # found when the folder was opened
                tell(self._left.pop(0))
            if loaded(self.path / RUN).get("id") != self.id:
                raise FolderError(f"{self.path} has been made another run's since it was opened; choose another --out")
            with explained(self.path), self._stages.hold():
                yield

    def _make(self) -> None:
        with explained(self.path):
            (self.path / "tasks").mkdir(parents=True, exist_ok=True)
            recover(self.path)
            there = listed(self.path, found := read_stages(self.path, hashes=False))
            if there is None or (not found and there.run != self.id):
                # Before any task, so that a list that is missing later was lost.
                self.write_manifest()
            else:
                sweep_left(self.path, there, found)
            write(self.path / RUN, self.record)

    def _check(self, resume: bool) -> None:
        """Refuse a folder that is not this run's to go on in."""
        place = self.path / RUN
        there = loaded(place)
        if "id" not in there:
            raise FolderError(f"{place} is damaged; choose another --out")
        empty = not any(self.path.glob(f"tasks/*/{COMMIT}"))
        if empty and (is_begun(self.path) or not (self.path / HISTORY).is_file()):
            return  # nothing was learned here yet: a first try that failed may be mended and started again
        if there["id"] != self.id:
            self._take_id(place, there)
        if there["id"] != self.id:
            changed = ", ".join(differing_settings(self.record.plain(), there)) or "settings"
            raise FolderError(f"{self.path} holds another run (different: {changed}); choose another --out")
        if not resume and not empty:
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
            self._stages.run = known.id

    def stages(self) -> list[Committed]:
        """Return the finished stages of the run in ``path``, in order.

        While this process holds the folder, nobody else writes to it: they are read once, and then those that it adds.

        Raises:
            FolderError: a file of a finished stage is missing or changed.
        """
        return self._stages.read()

    @contextmanager
    def commit(self, number: int, name: str, facts: StageFacts) -> Iterator[Path]:
        """Give a folder to fill; when the block ends it is hashed, sealed and put in its place at once."""
        target = self.path / "tasks" / folder_name(number, name)
        if target.exists():  # what is here was never committed
            shutil.rmtree(target)
        with staged(target) as folder:
            yield folder
            # By which a folder whose own is torn or lost is repaired.
            for file in (self.path / RUN, self.path / ENVIRONMENT):
                if file.is_file():
                    write_text(folder / file.name, file.read_text(encoding="utf-8"))
            self._seal(folder, Commit, facts, number, name)
        self._stages.add(target)

    @contextmanager
    def commit_evaluation(self, stage: Committed, facts: Scored) -> Iterator[Path]:
        """Give a folder to fill with the answers after a committed stage; it takes the place of an earlier one."""
        old = newest_evaluation(stage.path)
        with staged(stage.path / f"{EVALUATION}{number_of(old.name) + 1 if old else 1}") as folder:
            yield folder
            self._seal(folder, Evaluation, facts, stage.facts.number, stage.facts.name)
        self._stages.add(stage.path)
        if old is not None:
            shutil.rmtree(old)

    @contextmanager
    def commit_before(self, facts: BaselineFacts) -> Iterator[Path]:
        """Give a folder to fill with what was measured before the first task; see `commit`."""
        with staged(self.path / BEFORE) as folder:
            yield folder
            self._seal(folder, Baseline, facts, 0, BEFORE)
        self.write_manifest()

    def _seal(self, folder: Path, kind: type[Record], facts: Record, number: int, name: str) -> None:
        """Write the COMMIT of a folder, with the hashes of all else: without it, the folder does not count."""
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        seal: dict[str, object] = {"run": self.id, "number": number, "name": name, "files": files}
        write(folder / COMMIT, kind.model_validate({**seal, **_fields(facts)}))

    def write_manifest(self, *, complete: bool = False) -> None:
        """Write which tasks the folder has; with the files at its root once they are all written."""
        self._stages.write_manifest(complete=complete)

    def before(self) -> CommittedBaseline | None:
        """Return what was measured before the first task of this run, if anything was.

        Raises:
            FolderError: a file of it is missing or changed.
        """
        place = self.path / BEFORE
        if not (place / COMMIT).is_file():
            return None
        facts = read_json(Baseline, place / COMMIT)
        verify_files(place, facts.files)
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
    found = read_stages(path)
    if found and loaded(path / RUN).get("id") != found[0].facts.run:
        raise FolderError(f"{path / RUN} is of another run than {found[0].path}; copy the one that is there")
    if (manifest := read_manifest(path)) is None or manifest.exchange is None:  # the root is not yet that of these
        check_root(path)
    return found


def read_run(path: Path) -> RunRecord:
    """Read run.yaml: settings, composition, id.

    Raises:
        FolderError: there is no run of everlora, or its file is damaged or of a newer everlora.
    """
    place = path / "run.yaml"
    copies = any(path.glob(f"tasks/[0-9]*/{RUN}"))
    if not place.is_file() and not copies:
        raise FolderError(f"{path} holds no run of everlora; name the folder that was given as --out")
    try:
        return restored(RunRecord, place, loaded(place))
    except FolderError as error:
        if not copies:
            raise
        raise FolderError(f"{error}, or from that in its tasks: everlora verify {path} --repair") from error


def read_matrix(path: Path) -> MatrixRecord:
    """Read matrix.json of the run in ``path``.

    Raises:
        FolderError: it is not there, damaged, or of a newer everlora.
    """
    found = read_json(MatrixRecord, path / MATRIX)
    if (path / RUN).is_file() and found.id != loaded(path / RUN).get("id", found.id):
        raise FolderError(f"{path / MATRIX} is of another run; everlora verify {path} --repair makes it anew")
    return found


def _fields(record: Record) -> dict[str, object]:
    """Return the fields of a record as they are, to make a record of which they are a part."""
    return {name: getattr(record, name) for name in type(record).model_fields}
