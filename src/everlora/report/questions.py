"""Reads the texts of a run's test rows again, where they are at hand and the same: its folder does not have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from everlora.analysis.recorded import RecordedRun
from everlora.core.errors import EverloraError
from everlora.data.task import Example, Task
from everlora.settings.spec import RunSpec

BUILTIN = "builtin"
Questions = Mapping[str, Sequence[str]]
"""Texts of test rows, in order, by task."""


def questions_of(run: RecordedRun) -> Questions:
    """Return the texts of the test rows that were answered; nothing of tasks whose rows are elsewhere, or others now.

    Nothing is fetched: a benchmark that comes from the hub has no texts here.
    """
    # What reads rows imports what learns from them, which takes seconds.
    try:
        found = _followed(run) if isinstance(run.record.settings, RunSpec) else _learned(run)
    except EverloraError:
        return {}
    known = {name: digest for stage in run.stages for name, digest in stage.facts.data.items()}
    counts = dict(zip(run.tasks, run.matrix.counts, strict=True))
    return {
        name: [text_of(row) for row in rows]
        for name, digest, rows in found
        if digest in (None, known.get(name)) and len(rows) == counts.get(name)
    }


def _followed(run: RecordedRun) -> Iterable[tuple[str, str | None, Sequence[Example]]]:
    """Open the stream of a run that followed a benchmark, if it is on this machine."""
    from everlora.benchmarks.streams import is_own
    from everlora.learner.experiment import rows_of

    spec = run.record.settings
    assert isinstance(spec, RunSpec)
    here = spec.benchmark == BUILTIN or is_own(spec.benchmark) or spec.data_dir is not None
    tasks: Sequence[Task] = rows_of(spec).tasks if here else ()
    return [(task.name, task.digest(), task.test) for task in tasks]


def _learned(run: RecordedRun) -> Iterable[tuple[str, str | None, Sequence[Example]]]:
    """Read the test rows that a learner has kept, or that are where they were: their file's hash was looked at."""
    from everlora.archive.committed import read_stages
    from everlora.learner.opened import remembered

    tasks = [task for stage in read_stages(run.path, hashes=False) for task in remembered(stage)]
    return [(task.name, None, task.test) for task in tasks]


def text_of(row: Example) -> str:
    """Return what a row asks: its text, or the last message of a chat; nothing of a picture.

    >>> text_of(Example([{"role": "user", "content": "hi"}], "hello"))
    'hi'
    """
    if isinstance(row.input, str):
        return row.input
    last = row.input[-1] if isinstance(row.input, list) and row.input else {}
    return str(last.get("content", "")) if isinstance(last, dict) else ""
