"""Makes a list of methods x orders x seeds, of jobs that know nothing of one another, and does them.

A job is settings and a folder: whatever else works such a list off (many machines) needs no more.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from everlora.core.errors import ConfigError, DataError, EverloraError, ModelError, TrainingError
from everlora.core.expressions import parse
from everlora.core.registry import entries
from everlora.learner import experiment
from everlora.learner.tuned import Tuned, distinct, row_of
from everlora.models.loading import Loaded
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings, RunSpec
from everlora.training.stages import validate_task

FEATURES, FIRST = ".features", ".first"
"""Where the runs of a sweep share hidden states, and first tasks, inside its folder, while it is running."""


@dataclass(frozen=True)
class Job:
    """Is one run to be made.

    Attributes:
        spec: its settings, complete.
        folder: where it goes.
        shared: the folder in which jobs share first tasks that are equal; None where each learns its own.
        features: the folder in which they share hidden states while they run; None for that of the settings. No
            setting, since what lasts as long as a sweep has no place in the record of a run.
    """

    spec: RunSpec
    folder: Path
    shared: Path | None = None
    features: Path | None = None

    @property
    def name(self) -> str:
        """Return its folder inside that of the sweep, which tells it from all others."""
        sweep = self.folder.parent if self.shared is None else self.shared.parent
        return self.folder.relative_to(sweep).as_posix() if self.folder.is_relative_to(sweep) else self.folder.name


@dataclass(frozen=True)
class Failed:
    """Holds a job that could not be done, and why, in one line."""

    job: Job
    error: EverloraError

    @property
    def reason(self) -> str:
        return str(self.error)


def fitting(family: str) -> list[str]:
    """Return all systems of the registered methods that make sense on a model family, as expressions."""
    lacking = unfitting(family)
    return [row for known in entries() for row in known.tabled if row not in lacking]


def unfitting(family: str) -> dict[str, tuple[str, ...]]:
    """Return the systems that make no sense on a model family, and the families on which they do."""
    rows = {row: parse(row).families for known in entries() for row in known.tabled}
    return {row: families for row, families in rows.items() if family not in families}


def safe(expression: str) -> str:
    """Return a method's expression as the name of a folder; the name alone where there are no options."""
    name = parse(expression).name if "(" not in expression else expression
    return "".join(c if c.isalnum() or c in "-+=." else "_" for c in name).strip("_")


def jobs(
    layers: Sequence[RawSettings],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    orders: Sequence[int | str] = (),
    tuned: Mapping[str, Tuned] | None = None,
) -> list[Job]:
    """Return one job per seed, order and method, seed by seed, so that a cut sweep has complete tables.

    Args:
        layers: settings as for `everlora.learner.resolve.resolve`; what a method sets itself, such as the learning
            rate of its form, holds where they are silent.
        methods: expressions; those of them that spell one method are one.
        seeds: of adapters and data order.
        out: where the folders go, called ``METHOD-seedN``, or ``METHOD-orderM-seedN`` where orders are named.
        orders: of the benchmark's tasks; empty for the one that the settings name.
        tuned: by expression, in any spelling, what was found for it; it holds over ``layers``.

    Raises:
        ConfigError: an unknown method, two that would go to one folder, or nothing to do.
    """
    named = _by_folder(methods)
    if not named or not seeds:
        raise ConfigError("a sweep needs at least one method and one seed")
    todo = []
    for seed in dict.fromkeys(seeds):
        for order in dict.fromkeys(orders) or (None,):
            for name, expression in named.items():
                found = row_of(expression, tuned or {}) or Tuned(method=expression, settings={})
                place = "" if order is None else f"-order{order}"
                own = {"method": found.method, "seed": seed, "order": order}
                spec = experiment.resolve(RunSpec, *layers, found.settings, own)
                todo.append(Job(spec, out / f"{name}{place}-seed{seed}"))
    return todo


def _by_folder(methods: Sequence[str]) -> dict[str, str]:
    """Return expressions by the name of their folder, those that spell one system once.

    Raises:
        ConfigError: an unknown method, or two systems whose folders have one name.
    """
    for expression in methods:
        parse(expression)  # a mistyped one is refused before the first is trained
    named: dict[str, str] = {}
    for expression in distinct(methods):
        if (other := named.setdefault(safe(expression), expression)) != expression:
            raise ConfigError(f"{other!r} and {expression!r} would go to one folder; sweep them with two --out")
    return named


@contextmanager
def sharing(todo: Sequence[Job], out: Path) -> Iterator[list[Job]]:
    """Let jobs share what they would each make alike, inside the block: first tasks, and hidden states.

    The latter are what the frozen layers make of texts, where the adapted ones are chosen; jobs with a
    ``feature_cache`` keep it. Both lie in folders in ``out``, removed when the block ends without an error.
    """
    experiment.forget_stream()  # its files may have changed since another sweep of this process
    place = out / FEATURES

    def of(job: Job) -> Job:
        job = replace(job, shared=out / FIRST)
        if job.spec.feature_cache is not None or job.spec.lora.layers is None:
            return job
        return replace(job, features=place)

    yield [of(job) for job in todo]
    for folder in (place, out / FIRST):
        shutil.rmtree(folder, ignore_errors=True)


def work(
    todo: Iterable[Job],
    base: Loaded,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    failed: Callable[[Failed], None] | None = None,
) -> list[experiment.Result]:
    """Do jobs one after another, each on a copy of one loaded base model.

    Args:
        todo: the jobs; all on the model that ``base`` is.
        base: the model, which stays as it is.
        resume: go on with runs that are there.
        progress: is shown every step.
        failed: is called with jobs that could not be done (rows too long for a method's prompts, a loss that is not
            a number), and the others are done; without it the first such job ends the work.
    """
    results, shown, listed = [], progress or Progress(), list(todo)
    for number, job in enumerate(listed, start=1):
        method = parse(job.spec.method)
        tasks = (experiment.latest_stream if job.shared else experiment.stream_for)(job.spec, base).tasks
        if number == 1:  # data that no method could learn end the work before anything runs, and not job by job
            for task in tasks:
                validate_task(task, base.family, job.spec.evaluation, Progress())
        shown.begin_run(job.name, number, len(listed))
        shown.info(f"{job.name}: {method.policy}")
        try:
            own = copy.deepcopy(base)
            places = {"shared": job.shared, "features": job.features}
            results.append(
                experiment.follow(job.spec, method, own, tasks, job.folder, resume=resume, progress=shown, **places)
            )
        except (TrainingError, ModelError, DataError, ConfigError) as error:  # a folder in the way ends the work
            if failed is None:
                raise
            failed(Failed(job, error))
            shown.warn(f"{job.name} is left out: {error}")
    return results


def compare(
    spec: RunSpec,
    methods: Sequence[str] | Mapping[str, str],
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[experiment.Result]:
    """Run several methods with the seed of ``spec``, each in its own folder below ``out``.

    Args:
        spec: resolved settings; its method is not used.
        methods: expressions, or expressions by the name of their folder.
        out: where the folders are made; without names of their own, they are called after their methods.
        resume: go on with runs that are there.
        progress: is shown every step.
    """
    named = methods if isinstance(methods, Mapping) else {safe(expression): expression for expression in methods}
    todo = [Job(spec.model_copy(update={"method": one}), out / name) for name, one in named.items()]
    with sharing(todo, out) as shared:
        return work(shared, experiment.load_for(spec), resume=resume, progress=progress)
