"""Runs a method on a stream of tasks: makes model, folder and learner of settings, and writes what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from transformers.utils import logging as hf_logging

import everlora.methods  # noqa: F401  (registers the methods)
from everlora.analysis.single_task import single_task_reference
from everlora.archive.atomic import staged_files, write_text
from everlora.archive.card import model_card
from everlora.archive.folder import RunFolder
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.manifest import BEFORE, COMMIT
from everlora.archive.references import write_single_task_scores
from everlora.archive.results import MatrixRecord
from everlora.archive.schema import write
from everlora.benchmarks import open_stream
from everlora.benchmarks.streams import is_yaml, owners
from everlora.core.benchmark import Modality
from everlora.core.errors import ConfigError, DataError, ModelError
from everlora.core.expressions import parse, split_expression
from everlora.core.method import Method
from everlora.core.plain import JsonObject
from everlora.core.plugins import Origin, file_origin, files
from everlora.core.registry import origins
from everlora.data.stream import TaskStream
from everlora.data.task import Task
from everlora.data.unscored import unscored
from everlora.learner.resolve import method_of as method_of
from everlora.learner.resolve import names as names
from everlora.learner.resolve import protocol_of
from everlora.learner.resolve import read_recipe as read_recipe
from everlora.learner.resolve import resolve as resolve
from everlora.learner.same_base import check_base, check_same_model, pooling_of, spelling_of
from everlora.learner.sequential import SequentialLearner
from everlora.metrics.registry import METRICS, answer_metric
from everlora.metrics.scores import ScoreMatrix
from everlora.metrics.texts import unread
from everlora.models.environment import environment
from everlora.models.families.feature_cache import FeatureCache
from everlora.models.loading import Loaded, load
from everlora.runtime import world
from everlora.runtime.progress import Progress, spent
from everlora.settings.spec import LearnerSpec, RunSpec


@dataclasses.dataclass(frozen=True)
class Result:
    """Holds what a run came to.

    Attributes:
        folder: where it is written.
        matrix: the accuracy matrix.
        record: what matrix.json says.
    """

    folder: Path
    matrix: ScoreMatrix
    record: MatrixRecord

    def __repr__(self) -> str:
        return f"Result({self.record.method or 'run'} in {self.folder}: {self.matrix!r})"

    def _repr_html_(self) -> str:
        return self.matrix._repr_html_()

    def as_json(self) -> JsonObject:
        """Return the object that ``everlora run --json`` prints."""
        plain = self.record.plain()
        wanted = ("tasks", "matrix", "metrics", "method", "model", "protocol", "fingerprints", "base", "general")
        return {**{key: plain[key] for key in wanted if key in plain}, "folder": str(self.folder)}


def load_for(
    spec: LearnerSpec, learned_in: Path | None = None, style: Literal["chat", "plain", "auto"] = "plain"
) -> Loaded:
    """Load the base model that ``spec`` names; an encoder pools as it did for the tasks in ``learned_in``."""
    hf_logging.disable_progress_bar()
    return load(
        spec.model,
        revision=spec.revision,
        dtype=spec.dtype,
        device=spec.device,
        max_source_length=spec.max_source_length,
        max_new_tokens=spec.max_new_tokens,
        prompt=spec.prompt,
        prompt_style=spec.prompt_style or style,
        trust_remote_code=spec.trust_remote_code,
        pooling=spec.pooling or (pooling_of(learned_in) if learned_in else None),
    )


def run(
    spec: RunSpec, out: Path, *, resume: bool = False, progress: Progress | None = None, single: Path | None = None
) -> Result:
    """Follow a benchmark's stream from beginning to end.

    Args:
        spec: resolved settings, see `resolve`.
        out: the run folder.
        resume: go on in a folder that holds this same run.
        progress: is shown every step; silent by default.
        single: a finished run that learned each of these tasks alone; its scores make intransigence.

    Raises:
        EverloraError: anything that the caller can mend.
    """
    method = parse(spec.method)
    base = load_for(spec, out)
    stream = stream_for(spec, base)
    scores = single_task_reference(single, spec, stream.tasks) if single else None
    if single:
        check_base(base, single)
    learner = begin(spec, method, base, out, resume=resume, progress=progress or Progress())
    if scores and world.is_main():
        write_single_task_scores(out, single or out, scores)
    return finish(learner, learner.follow(stream.tasks))


def follow(
    spec: LearnerSpec,
    method: Method,
    base: Loaded,
    tasks: Sequence[Task],
    out: Path,
    *,
    resume: bool = False,
    progress: Progress,
    shared: Path | None = None,
    features: Path | None = None,
) -> Result:
    """Let a loaded model follow tasks; see `run`.

    Runs with one folder ``shared`` learn equal first tasks once; with one folder ``features`` they share hidden states
    of frozen layers, which no record of theirs names.
    """
    learner = begin(spec, method, base, out, resume=resume, progress=progress)
    learner.shared = shared
    if features is not None:
        learner.features = FeatureCache(features, progress.warn)
    return finish(learner, learner.follow(tasks))


def begin(
    spec: LearnerSpec, method: Method, base: Loaded, out: Path, *, resume: bool = False, progress: Progress
) -> SequentialLearner:
    """Make the folder of a learner, or open it again, and give it to a new learner.

    Raises:
        FolderError: the folder holds something else.
        ModelError: the method makes no sense on this kind of model.
    """
    if method.families and base.family.name not in method.families:
        raise ModelError(
            f"{method.name!r} makes sense on models of these families: {', '.join(method.families)}; {spec.model!r} "
            f"is of the family {base.family.name}"
        )
    record = RunRecord.of(
        spec.model_copy(update={"dtype": spelling_of(spec.dtype, base, out)}),
        Composition.of(method.describe()),
        protocol_of(spec, method),
        plugins_used(spec, method),
        world.size(),
    )
    return SequentialLearner(base, method, spec, open_folder(base, out, record, resume=resume), progress)


def open_folder(base: Loaded, out: Path, record: RunRecord, *, resume: bool, read_only: bool = False) -> RunFolder:
    """Make the folder of a learner, or open it again, and note on what it is used now.

    Raises:
        FolderError: it holds something else, or was learned on another base model.
    """
    # One process makes the folder; the others find it made.
    folder = world.on_main(lambda: RunFolder(out, record, resume=resume, write=not read_only))
    folder = folder or RunFolder(out, record, resume=True, write=False)
    if world.is_main():
        check_same_model(base, folder)
        if folder.stages() or (out / BEFORE / COMMIT).is_file():
            check_base(base, out)
        if not read_only:
            write(out / "environment.json", environment(base))
    return folder


def plugins_used(spec: LearnerSpec, method: Method) -> list[Origin]:
    """Return where a run's plug-ins are from: methods, benchmarks, all metrics, and files of no known use."""
    named = [name for name, _ in split_expression(method.expression)] if method.expression else []
    benchmark = [spec.benchmark, *owners(spec.benchmark)] if isinstance(spec, RunSpec) else []
    # Tasks may name any metric, and those of the matrix are all written: so all that are from outside count as used.
    found = origins(method=named, benchmark=benchmark, metric=METRICS.from_outside())
    found += [file_origin("benchmark", name, Path(name)) for name in benchmark if is_yaml(name)]
    # A file that registers nothing which is used may still have changed what everlora does.
    return found + [one for one in files() if one["file"] not in [other.get("file") for other in found]]


def finish(learner: SequentialLearner, matrix: ScoreMatrix) -> Result:
    """Write what a reader of the folder looks for first: matrix.json, the model card, the tokenizer or its like."""
    with learner.writing():
        return _finish(learner, matrix)


@spent("saving")
def _finish(learner: SequentialLearner, matrix: ScoreMatrix) -> Result:
    folder, out = learner.folder, learner.folder.path
    if world.is_main():
        folder.write_manifest()
        record = folder.write_matrix(matrix, learner.facts())
        base, adapter = learner.base, learner.method.adapter
        write_text(out / "README.md", model_card(record, folder.record, base.hub, adapter, base.family.head))
        with staged_files(out, "processor") as place:
            learner.base.family.processor.save_pretrained(str(place))
        folder.write_manifest(complete=True)
    else:
        record = folder.matrix_record(matrix, learner.facts())
    world.wait()
    return Result(folder=out, matrix=matrix, record=record)


@spent("data")
def stream_for(spec: RunSpec, base: Loaded) -> TaskStream:
    """Open the stream that ``spec`` names, in the kind of input that the model reads."""
    return adapt_tasks(_opened(spec, base.family.modality), spec, spec.stream_seed)


_latest: dict[tuple[str, Modality], TaskStream] = {}


def latest_stream(spec: RunSpec, base: Loaded) -> TaskStream:
    """Return what `stream_for` does; the latest is held, since files are large and runs of a sweep read the same.

    For jobs in a block of `everlora.learner.sweep.sharing` alone: others may find other files.
    """
    key = spec.model_dump_json(exclude={"method", "seed", "train", "lora"}), base.family.modality
    if key not in _latest:
        _latest.clear()
        _latest[key] = stream_for(spec, base)
    return _latest[key]


def forget_stream() -> None:
    """Forget what `latest_stream` holds, so that its files are read anew."""
    _latest.clear()


def rows_of(spec: RunSpec) -> TaskStream:
    """Open the stream that ``spec`` names without a model, to look at its rows."""
    return adapt_tasks(_opened(spec), spec, spec.stream_seed)


def _opened(spec: RunSpec, modality: Modality | None = None) -> TaskStream:
    return open_stream(
        spec.benchmark,
        order=spec.order,
        data_dir=spec.data_dir,
        tasks=spec.tasks,
        seed=spec.stream_seed,
        modality=modality,
        max_train_samples=spec.max_train_samples,
        max_eval_samples=spec.max_eval_samples,
    )


def limit_tasks(stream: TaskStream, spec: LearnerSpec) -> TaskStream:
    """Give tasks from Python as many rows as settings say, and the metric; see `adapt_tasks`."""
    return adapt_tasks(stream.take(spec.max_train_samples, spec.max_eval_samples), spec)


def adapt_tasks(stream: TaskStream, spec: LearnerSpec, seed: int = 0) -> TaskStream:
    """Give tasks as many rows of each class as settings say, drawn by ``seed``, and the metric that they name.

    Raises:
        DataError: rows are to be counted per class and have none, or the metric is unknown or misses what tells the
            answers apart.
        ConfigError: training arguments are for tasks none of which is here.
    """
    if spec.train_of and not set(spec.train_of) & set(stream.names):
        named = ", ".join(spec.train_of)
        raise ConfigError(f"train_of names {named}, and the tasks here are {', '.join(stream.names)}; take it out")
    most = (spec.max_train_per_class, spec.max_eval_per_class)
    tasks = (task.take_of_each(*most, seed=seed) for task in stream)
    if spec.metric is not None:
        tasks = (dataclasses.replace(task, metric=spec.metric) for task in tasks)
    adapted = dataclasses.replace(stream, tasks=tuple(tasks))
    for task in adapted:  # only now: a metric from the settings is the way out
        targets = [row.target for row in task.test]
        if why := unread(task.metric, targets) or unscored(task, ("test",), beyond=0.5):
            raise DataError(f"task {task.name!r}: {why}")
        if task.metric in METRICS.from_outside():  # one that fails does so before anything is learned
            answer_metric(task.metric).of_row(task.test[0].answered(task.test[0].target))
    return adapted
