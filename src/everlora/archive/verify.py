"""Looks at a learner's folder: what is damaged in it, what a process has left unfinished, and what to do.

Readers of a folder refuse it at the first fault. Here everything is looked at, and every fault is listed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from everlora.archive.answers_so_far import FILE as ANSWERS
from everlora.archive.broken_off import word_on
from everlora.archive.commits import Baseline, Commit, Evaluation, Seal
from everlora.archive.committed import EVALUATION, LISTED, folder_name, read_stages
from everlora.archive.history import HISTORY, Act
from everlora.archive.identity import RunRecord, identity
from everlora.archive.manifest import BEFORE, COMMIT, MANIFEST, NEXT, Manifest, is_new, number_of, read_manifest
from everlora.archive.parity import PARITY, expected_files, read_parity
from everlora.archive.records import Environment
from everlora.archive.results import MatrixRecord
from everlora.archive.root import MATRIX, PATTERNS, sha256
from everlora.archive.schema import R, read_json, read_rows, schema_of
from everlora.archive.verdict import COPY, Findings
from everlora.core.errors import FolderError

RUN, ENVIRONMENT, TASKS = "run.yaml", "environment.json", "tasks"
_LEFT = re.compile(r"\..+\.(part|old)")
_REPAIR = "everlora verify --repair makes it again"


class Inspection(Findings):
    """Goes through a folder and lists what is amiss; see `inspect`.

    Attributes:
        commits, run, manifest: as far as they are there and can be read; commits by the folders of their tasks.
    """

    def __init__(self, path: Path, hashes: bool = True, until: float = float("inf")) -> None:
        super().__init__(path, hashes, until)
        self.commits: dict[str, Commit] = {}
        self.run: RunRecord | None = None
        self.manifest: Manifest | None = None

    def look(self) -> None:
        """Look at everything."""
        if is_new(self.path):
            self.unfinished.append("nothing was written before a process ended: everlora init or run begins here")
            return
        if (pending := self.exchanging()) is not None:
            self.unfinished.append(pending)
            return
        tasks = sorted(p for p in self.path.glob(f"{TASKS}/[0-9]*") if p.is_dir())
        for task in tasks:
            if (found := self.sealed(Commit, task)) is not None:
                self.commits[task.name] = found
        self.listed(tasks)
        self.look_at_run()
        self.before()
        self.numbers()
        for task in tasks:
            self.evaluations(task)
        self.look_at_root()
        self.leftovers()
        self.parity()

    def exchanging(self) -> str | None:
        """Return what is going on where tasks are being exchanged, whose folders are in two places meanwhile."""
        try:
            there = read_manifest(self.path)
            if there is None or there.exchange is None:
                return None
            read_stages(self.path)
        except FolderError as error:
            if not (self.path / NEXT).exists():
                return None
            self.problem(self.path / NEXT, str(error))
        return "tasks are being taken back or exchanged: going on completes it, and then they can be looked at"

    def look_at_run(self) -> None:
        """Look at run.yaml, and at what was noted of the base model."""
        copies = [self.path / TASKS / task / RUN for task in self.commits]
        cure = _REPAIR if any(copy.is_file() for copy in copies) else "no task has a copy: make the learner again"
        self.run = self.read(RunRecord, self.path / RUN, cure)
        if self.run is not None:
            known = identity(self.run.settings, self.run.composition, self.run.processes)
            if known != self.run.id and schema_of(self.path / RUN) >= LISTED:
                self.problem(self.path / RUN, "has other settings than the run that its id names", cure)
            elif any(one.run != self.run.id for one in self.commits.values()):
                self.problem(self.path / RUN, "is of another run than the tasks", cure)
        place = self.path / ENVIRONMENT
        if self.commits or place.is_file():
            there = self.read(Environment, place, _REPAIR)
            copies = [self.path / TASKS / task / ENVIRONMENT for task in self.commits]
            known_bases = [found for copy in copies if copy.is_file() and (found := _environment(copy)) is not None]
            if there is not None and any(_other_base(there, one) for one in known_bases):
                self.problem(place, "names another base model than the tasks were learned on", _REPAIR)
            if there is not None and self._sealed_tasks() and (there.base_files is None or there.precision is None):
                self.problem(place, "does not say which base model the tasks need", _REPAIR)

    def _sealed_tasks(self) -> bool:
        """Return whether a task is of a schema in which everything has a hash."""
        return any(schema_of(self.path / TASKS / name / COMMIT) >= LISTED for name in self.commits)

    def sealed(self, kind: type[R], folder: Path) -> R | None:
        """Look at a folder with a COMMIT: what it says, and whether all that it lists is there, and nothing else."""
        cure = COPY if folder.parent.name == TASKS else "restore it from a copy, or score again (everlora eval)"
        found = self.read(kind, folder / COMMIT, cure)
        if not isinstance(found, Seal):
            return None
        for name, digest in found.files.items():
            self.same(folder / name, digest, cure)
        for file in folder.iterdir():
            if file.is_file() and file.name not in (*found.files, COMMIT) and not file.name.startswith("."):
                self.problem(file, "is not one of the files that were committed", "take it away")
        return found

    def before(self) -> None:
        """Look at what was measured before the first task."""
        place = self.path / BEFORE
        wanted = self.manifest.before if self.manifest else None
        if place.exists() or wanted is not None:
            found = self.sealed(Baseline, place) if place.is_dir() else None
            if wanted is not None:
                self.same(place / COMMIT, wanted)
            if found is not None and self.run is not None and found.run != self.run.id:
                self.problem(place / COMMIT, "is of another run")

    def numbers(self) -> None:
        """Look whether tasks are what their folders say, in order, and of one run."""
        for name, facts in self.commits.items():
            place = self.path / TASKS / name / COMMIT
            if name != folder_name(facts.number, facts.name):
                self.problem(place, f"is of task {facts.number}, {facts.name!r}, and not of its folder's")
            if self.run is not None and facts.run != self.run.id and facts.run != self._most():
                self.problem(place, "is of another run")
        numbers = sorted(facts.number for facts in self.commits.values())
        known = {entry.folder for entry in self.manifest.tasks} if self.manifest else set()
        broken = {problem.file for problem in self.problems}
        for number in range(1, max(numbers, default=0)):
            if number not in numbers and not any(name.startswith(f"{number:02d}-") for name in known):
                self.problem(self.path / TASKS / f"{number:02d}-*", "is missing: there are tasks after it")
            elif number not in numbers and not any(file.startswith(f"{TASKS}/{number:02d}-") for file in broken):
                self.problem(self.path / TASKS / f"{number:02d}-*" / COMMIT, "is missing")

    def stack(self) -> list[str] | None:
        """Return the hashes of the COMMITs of the tasks, in order; None where something is damaged."""
        tasks = sorted(self.commits, key=lambda task: self.commits[task].number)
        return None if self.problems else [sha256(self.path / TASKS / task / COMMIT) for task in tasks]

    def _most(self) -> str:
        """Return the run that most tasks are of."""
        runs = [facts.run for facts in self.commits.values()]
        return max(runs, key=runs.count, default="")

    def evaluations(self, task: Path) -> None:
        """Look at how a task was scored."""
        places = sorted(task.glob(f"{EVALUATION}*"), key=lambda place: number_of(place.name))
        sealed = [place for place in places if (place / COMMIT).exists()]
        entry = next((one for one in self.manifest.tasks if one.folder == task.name), None) if self.manifest else None
        facts, wanted = self.commits.get(task.name), entry.evaluation if entry else None
        newest = sealed[-1] if sealed else None
        for place in places:
            if newest is not None and number_of(place.name) < number_of(newest.name):
                self.unfinished.append(f"{task.name}/{place.name} has a newer one: going on sweeps it")
            elif place != newest:
                self.problem(place / COMMIT, "is missing", "restore it from a copy, or score again (everlora eval)")
        found = self.sealed(Evaluation, newest) if newest else None
        its = (facts.run, facts.number, facts.name) if facts else None
        if newest is not None and found is not None and its not in (None, (found.run, found.number, found.name)):
            self.problem(newest / COMMIT, "is of another task, or another run")
        if wanted is not None and (newest is None or number_of(newest.name) < number_of(wanted)):
            if not any(place.name == wanted for place in places):
                self.problem(task / wanted, "is missing", "restore it from a copy, or score again (everlora eval)")
        elif wanted is not None and newest is not None and newest.name == wanted and entry and entry.scores:
            self.same(newest / COMMIT, entry.scores)
        if facts is not None and newest is None and wanted is None and not facts.row:
            self.unfinished.append(f"{task.name} is trained and not scored yet: going on scores it")

    def listed(self, tasks: Sequence[Path]) -> None:
        """Look whether the tasks are those that the manifest lists."""
        place = self.path / MANIFEST
        if place.exists() or self._sealed_tasks():
            self.manifest = self.read(Manifest, place, _REPAIR)
        if self.manifest is None:
            return
        there = [task.name for task in tasks]
        for entry in self.manifest.tasks:
            commit = self.path / TASKS / entry.folder / COMMIT
            if entry.folder not in there:
                self.problem(self.path / TASKS / entry.folder, "is missing, and was committed")
            elif entry.folder in self.commits and sha256(commit) != entry.commit:
                self.problem(commit, "is another one than was written")
        known = [entry.folder for entry in self.manifest.tasks]
        new = [task for task in there if task not in known]
        for number, task in enumerate(new):
            if task not in self.commits:
                if not any(one.file.startswith(f"{TASKS}/{task}/") for one in self.problems):
                    self.problem(self.path / TASKS / task / COMMIT, "is missing")
            elif number == 0:
                self.unfinished.append(f"{MANIFEST} does not list {task} yet: going on lists it")
            else:
                self.problem(self.path / TASKS / task, "is in no list: it is of another learner", "take it away")
        if self.commits and self.manifest.run != self._most():
            self.problem(place, "is of another run than the tasks", _REPAIR)

    def look_at_root(self) -> None:
        """Look at the files at the root: the learner as one adapter, scores, card, what makes input of rows."""
        known = self.manifest.files if self.manifest else None
        if (self.path / MATRIX).exists():
            found = self.read(MatrixRecord, self.path / MATRIX, _REPAIR)
            if found is not None and self.run is not None and found.id != self.run.id:
                self.problem(self.path / MATRIX, "is of another run", _REPAIR)
        for name, digest in (known or {}).items():
            file = self.path / name
            if name == HISTORY:
                self.same(file, digest, "restore it from a copy; what was learned stands in the tasks as well")
            elif not any(one.file == name for one in self.problems):
                self.same(file, digest, _REPAIR)
        if (self.path / HISTORY).exists() and known is None:
            self.history()
        if self.manifest is not None and known is None:
            self.unfinished.append("the files at the root are not all written: going on, or --repair, writes them")
        for file in sorted({file for pattern in PATTERNS for file in self.path.glob(pattern)}):
            if known is not None and file.name not in known and not file.name.startswith("."):
                self.problem(file, "is not one of the files that were written", "take it away")

    def history(self) -> None:
        """Look whether the history can be read."""
        try:
            read_rows(Act, self.path / HISTORY)
        except FolderError:
            self.problem(self.path / HISTORY, "is damaged", "restore it from a copy, or take it away")

    def leftovers(self) -> None:
        """Look for what a process has left that was ended."""
        if (self.path / NEXT).exists():
            self.unfinished.append("tasks were to be exchanged, and were not: going on sweeps what was prepared")
        if (left := word_on(self.path, self.stack(), read=self.hashes and not self.late)) is not None:
            self.unfinished.append(left)
        if (self.path / ANSWERS).exists():
            self.unfinished.append("an evaluation was broken off: going on, or everlora eval, goes on from there")
        for place in (self.path, *self.path.glob(TASKS), *self.path.glob(f"{TASKS}/[0-9]*")):
            if place.is_dir():
                for file in place.iterdir():
                    if _LEFT.fullmatch(file.name):
                        name = file.relative_to(self.path).as_posix()
                        self.unfinished.append(f"{name} was never put in its place: going on sweeps it")

    def parity(self) -> None:
        """Look at the parity, and whether it is of the files that are here."""
        place = self.path / PARITY
        if not place.exists():
            return
        self.seen.add(place)
        try:
            run = self.run.id if self.run else self._most()
            there = read_parity(place, run, body=self.hashes and not self.late)
        except FolderError:
            self.problem(place, "is damaged, or of another run", "make it anew: everlora verify --parity")
            return
        now = expected_files(self.path, self.commits)
        if {entry.name: entry.sha256 for entry in there.files} != now:
            self.notes.append(f"{PARITY} is stale: it is of other files; everlora verify --parity makes it anew")


def _environment(file: Path) -> Environment | None:
    try:
        return read_json(Environment, file)
    except FolderError:
        return None


def _other_base(a: Environment, b: Environment) -> bool:
    """Return whether two environments name different base models; what one of them leaves open is not different."""
    if a.base_files is None or b.base_files is None or a.base_files.commit != b.base_files.commit:
        return a.base_files is not None and b.base_files is not None and a.base_files.digests != b.base_files.digests
    names = a.base_files.digests.keys() & b.base_files.digests.keys()
    return a.family != b.family or any(a.base_files.digests[n] != b.base_files.digests[n] for n in names)


def inspect(path: Path, *, hashes: bool = True, seconds: float | None = None) -> Inspection:
    """Look at a learner's folder without loading anything; see `everlora.learner.verbs.verify` for what can be loaded.

    Args:
        path: the folder.
        hashes: read every file, to see whether it is what was written; otherwise only whether it is there.
        seconds: after so many, no further file is read.

    Raises:
        FolderError: there is no folder.
    """
    if not path.is_dir():
        raise FolderError(f"{path} is no folder; name the folder of a learner")
    if not is_new(path) and not any((path / name).exists() for name in (RUN, MANIFEST, TASKS)):
        raise FolderError(f"{path} holds no learner; name the folder of one")
    seen = Inspection(path, hashes, time.monotonic() + seconds if seconds is not None else float("inf"))
    seen.look()
    return seen
