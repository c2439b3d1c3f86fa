"""Does the jobs of a sweep in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from everlora.core.errors import TrainingError
from everlora.core.plugins import load as load_plugin
from everlora.learner import experiment
from everlora.learner.sweep import Failed, Job, work
from everlora.models.loading import Loaded
from everlora.runtime.console import watched
from everlora.runtime.progress import Progress
from everlora.settings.spec import RunSpec


def work_in_processes(
    todo: Sequence[Job],
    workers: int,
    *,
    resume: bool = False,
    plugins: Sequence[Path] = (),
    report_to: str | None = None,
    progress: Progress,
    failed: Callable[[Failed], None],
) -> None:
    """Do jobs in several processes of this machine, each with a model of its own and its share of the cores.

    Args:
        todo: the jobs; all on one model.
        workers: how many processes.
        resume: go on with runs that are there.
        plugins: files that register what the jobs name.
        report_to: trackers, which get a run for each job.
        progress: is shown every job that has ended, and how long the others will take.
        failed: is called with jobs that could not be done.
    """
    # Together as many threads as cores: more of them would wait for one another.
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Spawned: a process that is forked from one with torch's threads may wait for ever for a lock that they held.
    began, context = time.monotonic(), multiprocessing.get_context("spawn")
    setup = (todo[0].spec, threads, list(plugins))
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=setup) as pool:
        running = {pool.submit(_do, job, resume, report_to): job for job in todo}
        try:
            for number, ended in enumerate(as_completed(running), start=1):
                job, error = running[ended], ended.result()
                left = (time.monotonic() - began) / number * (len(todo) - number)
                progress.info(f"{job.name}: {error or 'done'} ({number} of {len(todo)}, {left / 60:.0f} min to go)")
                if error is not None:
                    failed(Failed(job, TrainingError(error)))
        except BaseException:
            # Jobs that have not begun do not begin; one in progress is resumed from its last committed task.
            for one in running:
                one.cancel()
            raise


_base: list[Loaded] = []
"""The model of this worker."""


def _begin_worker(spec: RunSpec, threads: int, files: Sequence[Path]) -> None:
    """Make a fresh process ready to do jobs."""
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # never more than OMP_NUM_THREADS allows
    for file in files:
        load_plugin(file)
    _base.append(experiment.load_for(spec))


def _do(job: Job, resume: bool, report_to: str | None) -> str | None:
    """Do one job in a worker; return why it could not be done, in one line."""
    failures: list[Failed] = []
    work([job], _base[0], resume=resume, progress=watched(Progress(), (), report_to or ()), failed=failures.append)
    return failures[0].reason if failures else None
