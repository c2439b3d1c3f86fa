"""Looks whether a learner is sound: its files, what stands in them, and whether stock tools answer as it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from everlora.adapters import files as adapters
from everlora.analysis.answers import CLOSE
from everlora.analysis.runs import Run
from everlora.archive.committed import Committed, read_stages
from everlora.archive.folder import read_matrix, read_run
from everlora.archive.lock import writing
from everlora.archive.manifest import COMMIT
from everlora.archive.parity import PARITY, expected_files, write_parity
from everlora.archive.records import AnswerRow
from everlora.archive.root import MATRIX
from everlora.archive.schema import read_rows
from everlora.archive.verdict import Depth, Findings, Verdict
from everlora.archive.verify import Inspection, inspect
from everlora.core.errors import ConfigError, EverloraError, FolderError, TrainingError
from everlora.learner.opened import load_learner
from everlora.learner.verbs import stock
from everlora.settings.spec import RawSettings
from everlora.training import memory

LORA = ("plain", "svd")
"""Forms whose numbers are all factors of updates."""
REPAIR = "everlora verify --repair makes it again"


def verify(
    path: Path, depth: Depth = "hashes", *, seconds: float | None = None, here: RawSettings | None = None
) -> Verdict:
    """Look whether a learner is sound.

    Args:
        path: its folder.
        depth: ``quick`` looks whether all files are there, ``hashes`` whether they are what was written, ``data``
            opens every tensor and counts again what is derived from others, ``logits`` lets transformers and PEFT
            alone answer a few rows, in a fresh process.
        seconds: after so many, no further file is read; what was not looked at is named.
        here: settings of this process, see `everlora.learner.opened.load_learner`.

    Raises:
        EverloraError: there is no folder, or for ``logits`` its base model cannot be loaded.
    """
    seen = inspect(path, hashes=depth != "quick", seconds=seconds)
    if depth in ("data", "logits"):
        for file in sorted(path.glob("*.safetensors")) + sorted(path.glob("tasks/[0-9]*/*.safetensors")):
            _open(seen, file)
        if not seen.problems:
            _compare(seen)
    if depth == "logits":
        _answer(seen, here)
    return seen.verdict(depth, len(seen.commits))


def keep_parity(path: Path, most: float | None = None) -> str:
    """Write the parity of a learner's committed files, by which any one of them is restored; say how large it is.

    Args:
        path: the learner's folder.
        most: percent of the folder that it may take.

    Raises:
        ConfigError: it would take more.
        FolderError: there is no task yet, a file is damaged, or the disk is full.
    """
    read_run(path)
    with writing(path):
        seen = inspect(path)
        if seen.run is None or not seen.commits:
            raise FolderError(f"{path} has no task whose files a parity could restore")
        files = expected_files(path, seen.commits)
        whole = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file != path / PARITY)
        longest = max((path / name).stat().st_size for name in files)
        if most is not None and 100 * longest > most * whole:
            raise ConfigError(
                f"a parity of {path} takes {100 * longest / whole:.0f} % more, and {most:g} % are allowed; it is as "
                f"long as the longest file of a task, and so takes less the more tasks there are"
            )
        record = write_parity(path, seen.run.id, files)
    share = 100 * (path / PARITY).stat().st_size / whole
    return f"{path / PARITY} restores any one of {len(record.files)} files; it takes {share:.0f} % more"


# --- what stands in the files ----------------------------------------------------------------------------------------


def _open(seen: Inspection, file: Path) -> None:
    """Look whether every tensor of a file can be read and is finite."""
    if seen.late:
        seen.unseen.append(f"tensors of {file.relative_to(seen.path).as_posix()}")
        return
    try:
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    seen.problem(file, f"holds numbers that are not finite, in {name}")
    except (OSError, SafetensorError) as error:
        seen.problem(file, f"cannot be opened: {error}")


def _compare(seen: Inspection) -> None:
    """Look whether what is derived from other files is what they come to."""
    try:
        found = read_stages(seen.path)
        for stage in found:
            if seen.late:
                seen.unseen.append(f"answers of {stage.path.name}")
            else:
                _means(seen, stage)
        if (seen.path / MATRIX).is_file():
            _matrix(seen, found)
        if found:
            _law_of_memory(seen, Run.read(seen.path))
    except EverloraError as error:
        seen.notes.append(f"not everything could be counted again: {error}")


def _means(seen: Findings, stage: Committed) -> None:
    """Look whether the scores of a stage are the means of its answers."""
    names = _names(seen.path, stage)
    if not stage.predictions.is_file() or names is None:
        return
    marks: dict[str, list[float]] = {}
    for row in read_rows(AnswerRow, stage.predictions):
        marks.setdefault(row.task, []).append(row.mark)
    for task, each in marks.items():
        if task not in names:  # the one that a run with schedule forward would have learned next
            continue
        at = names.index(task)
        noted = stage.facts.row[at] if at < len(stage.facts.row) else None
        mean = 100.0 * sum(each) / len(each)
        if noted is None or not abs(mean - noted) <= CLOSE:
            seen.problem(stage.predictions, f"its rows of {task} come to {mean:.4f}, and its COMMIT says {noted}")


def _names(path: Path, stage: Committed) -> list[str] | None:
    """Return the tasks of a row in order; None where no file says it."""
    if (path / MATRIX).is_file():
        return read_matrix(path).tasks
    found = [name for one in read_stages(path, hashes=False) for name in one.facts.data]
    return found if len(found) >= len(stage.facts.row) else None


def _matrix(seen: Findings, found: list[Committed]) -> None:
    """Look whether matrix.json has the rows of the COMMITs, and the bytes that they hold."""
    record = read_matrix(seen.path)
    last = len(record.tasks) - 1
    for stage in found:
        single = len(found) == 1 and len(stage.facts.data) > 1  # all tasks were learned at once
        at = last if single else stage.facts.number - 1
        there = record.matrix[at] if 0 <= at < len(record.matrix) else []
        row = [*stage.facts.row, *[None] * len(there)][: len(there)]
        if stage.evaluated and row != there:
            seen.problem(seen.path / MATRIX, f"row {at + 1} is not that of {stage.path.name}", REPAIR)
    holdings = found[-1].facts.holdings if found else None
    if holdings is not None and len(found) == len(record.tasks) and holdings.memory_bytes != record.memory_bytes:
        seen.problem(
            seen.path / MATRIX, f"says {record.memory_bytes} bytes are kept, and not {holdings.memory_bytes}", REPAIR
        )


def _law_of_memory(seen: Findings, run: Run) -> None:
    """Look whether tasks have adapters for the same modules, and hold the bytes that their COMMITs say."""
    elements, rows, shapes = 0, 0, dict[str, tuple[int, ...]]()
    by_name = {stage.facts.name: stage for stage in run.stages}
    for name, sites in run.adapters():
        stage = by_name[name]
        here = {module: tuple(site.shape) for module, site in sites.items()}
        shapes = shapes or here
        if here != shapes:
            seen.problem(stage.path / adapters.WEIGHTS, "has other modules, or shapes, than that of the first task")
        numbers = sum(site.numel for site in sites.values())
        elements = numbers if run.continued else elements + numbers
        rows += stage.facts.stored_row_bytes
        if run.method.adapter.form in LORA:  # other forms have numbers beside the factors
            _holds(seen, stage, 4 * elements + memory.size(memory.read(stage.path)) + rows)


def _holds(seen: Findings, stage: Committed, kept: int) -> None:
    holdings = stage.facts.holdings
    if holdings is not None and holdings.memory_bytes != kept:
        seen.problem(stage.path / COMMIT, f"says {holdings.memory_bytes} bytes are kept, and its files come to {kept}")


def _answer(seen: Inspection, here: Mapping[str, object] | None) -> None:
    """Look whether transformers and PEFT alone answer as the learner does."""
    if seen.problems or seen.unfinished or not seen.commits:
        seen.notes.append("logits were not compared: that takes a learner that is sound, finished, and has a task")
        return
    if seen.late:
        seen.unseen.append("logits")
        return
    learner = load_learner(seen.path, here, read_only=True)
    if (reason := stock.why_not(learner)) is not None:
        seen.notes.append(f"logits were not compared: {reason}")
        return
    root = seen.path / adapters.WEIGHTS
    try:
        difference, most = stock.largest_difference(learner)
    except TrainingError as error:
        seen.problem(root, str(error), REPAIR)
        return
    if not difference <= most:
        seen.problem(
            root, f"answers otherwise with stock tools: logits differ by {difference:.1e} of the largest", REPAIR
        )
    seen.notes.append(
        f"logits of transformers and PEFT alone differ by {difference:.1e} of the largest, at most {most:g}"
    )
