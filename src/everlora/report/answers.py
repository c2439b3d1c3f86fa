"""Packs a run's answers for the browser of a page: every text once, rows as numbers, within a number of bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from everlora.analysis.recorded import RecordedRun
from everlora.archive.records import AnswerRow
from everlora.core.plain import Json, JsonObject
from everlora.report.numbers import NOTHING
from everlora.report.page import ANSWER_BYTES, BASE_BYTES, MOST_BYTES, Cell, Section, Table, text
from everlora.report.questions import Questions

LENGTHS = (400, 250, 120, 40)
"""Characters that texts are cut to, the longest first that fits."""
RESERVED = 450_000
"""Bytes of a page that are for all else."""


@dataclass(frozen=True)
class Answers:
    """Holds answers as a page's script reads them.

    Attributes:
        data: None where they are too many for a page.
        count: how many there are.
        length: characters that texts were cut to.
        size: in bytes.
    """

    data: JsonObject | None
    count: int
    length: int
    size: int


def allowed(count: int) -> int:
    """Return how many bytes a page with so many answers may have."""
    return min(BASE_BYTES + ANSWER_BYTES * count, MOST_BYTES)


def pack(run: RecordedRun, questions: Questions = MappingProxyType({})) -> Answers:
    """Pack the answers of a run, with the texts of the rows as far as they are known."""
    count = sum(len(stage.answers) for stage in run.stages)
    room = allowed(count) - RESERVED
    for length in LENGTHS:
        if count * 3 > room:  # a row takes three bytes at the very least
            break
        data = _packed(run, questions, length)
        size = len(json.dumps(data, ensure_ascii=True, separators=(",", ":")))
        if size <= room:
            return Answers(data, count, length, size)
    return Answers(None, count, 0, 0)


def _packed(run: RecordedRun, questions: Questions, length: int) -> JsonObject:
    known: dict[str, int] = {}

    def number(value: str) -> int:
        short = value if len(value) <= length else value[:length] + "…"
        return known.setdefault(short, len(known))

    tasks: list[Json] = []
    for name in run.tasks:
        stages: list[Json] = []
        targets: list[Json] = []
        for stage in run.stages:
            if rows := [row for row in stage.answers if row.task == name]:
                targets = targets or [number(row.target) for row in rows]
                stages.append(
                    {
                        "after": "all tasks" if run.joint else stage.facts.name,
                        "answers": [number(row.prediction) for row in rows],
                        "marks": "".join(_mark(row) for row in rows),
                    }
                )
        if stages:
            texts: list[Json] = [number(one) for one in questions.get(name, ())]
            tasks.append({"name": name, "texts": texts, "targets": targets, "stages": stages})
    return {"strings": list(known), "tasks": tasks}


def _mark(row: AnswerRow) -> str:
    """Return one sign: 1 right, 0 wrong, else the first digit of a share of 1 as a letter, a for below 0.1."""
    if row.metric is None:
        return "1" if row.correct else "0"
    mark = min(1.0, max(0.0, row.mark))
    return "1" if mark >= 1 else "0" if mark <= 0 else "abcdefghij"[int(10 * mark)]


def answers_section(run: RecordedRun, packed: Answers, questions: Questions) -> Section | None:
    """Return the browser of answers, or where they are too many, what became of them in numbers."""
    if not packed.count:
        return None
    fates = Table(
        ["task", "rows", "right all along", "right, then wrong", "wrong, then right", "wrong all along"],
        [_fates(name, [_of(stage.answers, name) for stage in run.stages]) for name in run.tasks if _known(run, name)],
        "What became of each task's test rows between when it was first scored and now.",
        "fates",
    )
    notes = []
    if packed.data is not None and not questions:
        notes.append(
            f"The texts of the rows are not in a run's folder; where the data are at hand, everlora report {run.path} "
            f"reads them again."
        )
    if packed.data is None:
        files = [str(stage.path.relative_to(run.path)) for stage in run.stages]
        notes.append(
            f"{packed.count:,} answers are too many for this page; they stand, a row each, in predictions.jsonl under "
            f"{files[0]} and the folders beside it."
        )
    elif packed.length < LENGTHS[0]:
        notes.append(f"Texts are cut to {packed.length} characters here; predictions.jsonl has them in full.")
    return Section("answers", "Answers", tables=[fates], notes=notes, browser=packed.data is not None)


def _known(run: RecordedRun, name: str) -> bool:
    return any(row.task == name for stage in run.stages for row in stage.answers)


def _of(rows: Sequence[AnswerRow], name: str) -> list[bool]:
    return [row.mark >= 0.5 for row in rows if row.task == name]


def _fates(name: str, stages: Sequence[Sequence[bool]]) -> list[Cell]:
    scored = [marks for marks in stages if marks]
    first, last = scored[0], scored[-1]
    pairs = list(zip(first, last, strict=False))
    counts = [pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))]
    if len(scored) == 1:  # nothing can have become of them yet
        return [
            text(name),
            Cell(f"{len(first):,}"),
            Cell(str(counts[0])),
            Cell(NOTHING),
            Cell(NOTHING),
            Cell(str(counts[3])),
        ]
    return [text(name), Cell(f"{len(pairs):,}"), *(Cell(f"{n:,}", heat=n / max(1, len(pairs))) for n in counts)]
