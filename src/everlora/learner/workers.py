"""Does the jobs of a sweep in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from types import FrameType

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

    Raises:
        TrainingError: a worker was ended from outside.
    """
    # Together as many threads as cores: more of them would wait for one another.
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Spawned: a process that is forked from one with torch's threads may wait for ever for a lock that they held.
    began, context = time.monotonic(), multiprocessing.get_context("spawn")
    stopped = context.Event()
    setup = (todo[0].spec, threads, list(plugins), stopped)
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=setup) as pool:
        running: dict[Future[str | None], Job] = {}
        try:
            running.update((pool.submit(_do, job, resume, report_to), job) for job in todo)
            for number, ended in enumerate(as_completed(running), start=1):
                job, error = running[ended], ended.result()
                left = (time.monotonic() - began) / number * (len(todo) - number)
                progress.info(f"{job.name}: {error or 'done'} ({number} of {len(todo)}, {left / 60:.0f} min to go)")
                if error is not None:
                    failed(Failed(job, TrainingError(error)))
        except BaseException as error:
            # Jobs that have not begun do not begin; one in progress is resumed from its last committed task.
            stopped.set()  # those that wait in a worker's queue cannot be cancelled
            for one in running:
                one.cancel()
            if isinstance(error, BrokenProcessPool):
                raise TrainingError(
                    "a worker was ended from outside, for lack of memory perhaps; finished tasks are kept: go on with "
                    "the same command and --resume, with fewer --workers"
                ) from None
            raise


class _Worker:
    """Is what a process that does jobs knows of itself."""

    def __init__(self) -> None:
        self.base: Loaded | None = None
        self.stopped: Event | None = None
        self.interrupted = self.busy = False

    @property
    def may_begin(self) -> bool:
        return not self.interrupted and (self.stopped is None or not self.stopped.is_set())

    def press(self, number: int, frame: FrameType | None) -> None:
        """End the job in hand at Ctrl-C, which reaches workers as well; between two jobs there is none to end."""
        again, self.interrupted = self.interrupted, True
        if self.busy and not again:
            raise KeyboardInterrupt


_worker = _Worker()
"""This one."""


def _begin_worker(spec: RunSpec, threads: int, files: Sequence[Path], stopped: Event | None = None) -> None:
    """Make a fresh process ready to do jobs."""
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, _worker.press)
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # never more than OMP_NUM_THREADS allows
    for file in files:
        load_plugin(file)
    _worker.base, _worker.stopped = experiment.load_for(spec), stopped


def _end_after(parent: BaseProcess) -> None:
    """End this process when its parent has ended, in whatever way: nobody would give it work or take its results."""
    parent.join()
    os._exit(1)  # at once, as by kill -9, which folders withstand: an ordinary end would wait for the job in hand


def _do(job: Job, resume: bool, report_to: str | None) -> str | None:
    """Do one job in a worker; return why it could not be done, in one line."""
    failures: list[Failed] = []
    _worker.busy = True
    try:
        if not _worker.may_begin or _worker.base is None:
            raise KeyboardInterrupt
        shown = watched(Progress(), (), report_to or ())
        work([job], _worker.base, resume=resume, progress=shown, failed=failures.append)
    finally:
        _worker.busy = False
    return failures[0].reason if failures else None
