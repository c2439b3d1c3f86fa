"""Does the jobs of a sweep in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType

import torch

from everlora.core.errors import TrainingError
from everlora.core.plugins import load as load_plugin
from everlora.learner import experiment
from everlora.learner.sweep import Failed, Job, work
from everlora.models.loading import Loaded
from everlora.runtime.console import watched
from everlora.runtime.progress import Progress
from everlora.runtime.stopping import END
from everlora.settings.spec import RunSpec

ENDING = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")]
"""Signals that end a command, and that its workers heed where it does."""
LINGER = 1.0
"""Seconds for which a worker that is to be gone waits for the command to end it; a broken pool never would."""


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
        EverloraError: what a worker's start was refused for, or a job that ends the work.
        TrainingError: a worker was ended from outside.
    """
    # Together as many threads as cores: more of them would wait for one another.
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Spawned: a process that is forked from one with torch's threads may wait for ever for a lock that they held.
    began, context, heeded = time.monotonic(), multiprocessing.get_context("spawn"), _heeded()
    stopped, ready = context.Event(), context.Event()
    setup = (todo[0].spec, threads, list(plugins), stopped, heeded, ready)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=setup)
    with _forwarding(heeded) as children:
        try:
            with _held(heeded):  # workers are born in here
                running: dict[Future[str | None], Job] = {
                    pool.submit(_do, job, resume, report_to): job for job in todo
                }
            for number, ended in enumerate(as_completed(running), start=1):
                job, error = running[ended], ended.result()
                left = (time.monotonic() - began) / number * (len(todo) - number)
                progress.info(f"{job.name}: {error or 'done'} ({number} of {len(todo)}, {left / 60:.0f} min to go)")
                if error is not None:
                    failed(Failed(job, TrainingError(error)))
        except BaseException as error:
            # Jobs that have not begun do not begin; one in progress is resumed from its last committed task.
            stopped.set()  # those that wait in a worker's queue cannot be cancelled
            if not ready.is_set():  # nobody waits for imports of processes that have nothing to put away
                for child in children():
                    child.kill()
            if isinstance(error, BrokenProcessPool):
                raise TrainingError(
                    "a worker was ended from outside, for lack of memory perhaps; finished tasks are kept: go on with "
                    f"the same command and --resume{', with fewer --workers' if workers > 1 else ''}"
                ) from None
            raise
        finally:
            # Futures are cancelled by the pool's own thread, which may be about to say that they have failed.
            pool.shutdown(cancel_futures=True)


def _heeded() -> list[signal.Signals]:
    """Return the signals that end a command which this process handles: not those that are ignored, as under nohup."""
    return [number for number in ENDING if callable(signal.getsignal(number))]


@contextmanager
def _held(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Let signals wait until the block has ended, and with a process that begins in it until that is ready for them.

    A process that imports torch knows no better than to die of Ctrl-C with a traceback.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _forwarding(numbers: Sequence[signal.Signals]) -> Iterator[Callable[[], list[BaseProcess]]]:
    """Pass signals that this process gets inside the block on to the workers that it has begun there, too.

    Ctrl-C reaches all of them anyway, which take no notice of a second one; `kill` and job schedulers may reach the
    one process alone. What is yielded returns those that live.
    """
    earlier, before = multiprocessing.active_children(), {number: signal.getsignal(number) for number in numbers}

    def children() -> list[BaseProcess]:
        return [child for child in multiprocessing.active_children() if child not in earlier]

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children():
            if child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)

    # On Windows ``os.kill`` would end a worker at once; other threads than the main one may set no handlers.
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield children
        return
    for number in numbers:
        signal.signal(number, forward)
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Worker:
    """Is what a process that does jobs knows of itself.

    Attributes:
        base: the model on which it does them.
        refused: what its start met with, for which it can do none.
        stopped: whether jobs may still begin; shared with the others.
        interrupted: whether a signal has come.
        leaving: whether one has come after which the process is to be gone.
        busy: whether there is work in hand.
    """

    def __init__(self) -> None:
        self.base: Loaded | None = None
        self.refused: BaseException | None = None
        self.stopped: Event | None = None
        self.interrupted = self.leaving = self.busy = False

    @property
    def may_begin(self) -> bool:
        return not self.interrupted and (self.stopped is None or not self.stopped.is_set())

    def press(self, number: int, frame: FrameType | None) -> None:
        """End the work in hand at a signal, once for all; between two jobs there is none to end.

        Ctrl-C ends it at once. By the others a system ends processes, which gives a training the time to write a
        checkpoint, as in a command without workers; the process goes when that is done.

        Raises:
            KeyboardInterrupt: there was work, which is to end at once.
            SystemExit: there was none.
        """
        again, self.interrupted = self.interrupted, True
        self.leaving = self.leaving or number != signal.SIGINT
        if self.leaving and not self.busy:
            signal.signal(number, signal.SIG_IGN)  # an end that cleans up is not to be disturbed
            sys.exit(128 + number)
        if self.busy and not again and (number == signal.SIGINT or not END.request()):
            raise KeyboardInterrupt

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Do what a signal may end, if anything may still begin.

        Raises:
            KeyboardInterrupt: a signal ended it, or nothing may begin.
        """
        try:
            self.busy = True
            if not self.may_begin:
                raise KeyboardInterrupt
            yield
        finally:
            self.busy = False
            if self.leaving:  # at once were too soon: the command would take it for killed before it had the result
                end = threading.Timer(LINGER, os.kill, (os.getpid(), signal.SIGTERM))
                end.daemon = True
                end.start()


_worker = _Worker()
"""This one."""


def _begin_worker(
    spec: RunSpec,
    threads: int,
    files: Sequence[Path],
    stopped: Event | None = None,
    heeded: Sequence[signal.Signals] = (),
    ready: Event | None = None,
) -> None:
    """Make a fresh process ready to do jobs, or keep why it cannot be, for the first job to tell."""
    if ready is not None:
        ready.set()
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
        for number in heeded:  # what the command ignores is ignored here as well, by birth
            signal.signal(number, _worker.press)
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # never more than OMP_NUM_THREADS allows
    _worker.stopped = stopped
    try:
        with _worker.at_work():
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)  # a signal that has waited comes here
            for file in files:
                load_plugin(file)
            _worker.base = experiment.load_for(spec)
    except (Exception, KeyboardInterrupt) as error:  # from here it would be printed, and the process pass for killed
        _worker.refused = error


def _end_after(parent: BaseProcess) -> None:
    """End this process when its parent has ended, in whatever way: nobody would give it work or take its results."""
    parent.join()
    os._exit(1)  # at once, as by kill -9, which folders withstand: an ordinary end would wait for the job in hand


def _do(job: Job, resume: bool, report_to: str | None) -> str | None:
    """Do one job in a worker; return why it could not be done, in one line.

    Raises:
        EverloraError: what the worker's start was refused for, or a job that ends the work.
        KeyboardInterrupt: nothing begins any more, or a signal ended the job.
    """
    failures: list[Failed] = []
    with _worker.at_work():
        if _worker.refused is not None:
            raise _worker.refused
        assert _worker.base is not None
        shown = watched(Progress(), (), report_to or ())
        work([job], _worker.base, resume=resume, progress=shown, failed=failures.append)
    return failures[0].reason if failures else None
