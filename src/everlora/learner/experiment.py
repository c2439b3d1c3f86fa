"""Wires settings to objects: the only file beside the command line that sees all rooms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging as hf_logging

import everlora.methods  # noqa: F401  (registers the methods)
from everlora.analysis.single_task import single_task_reference
from everlora.archive.atomic import write_json, write_text
from everlora.archive.card import model_card
from everlora.archive.folder import RunFolder, identified, of_tasks
from everlora.archive.references import take_single
from everlora.benchmarks import open_stream
from everlora.core.errors import ConfigError, FolderError, ModelError
from everlora.core.expressions import parse, split_expression
from everlora.core.method import Method
from everlora.core.plugins import Origin
from everlora.core.registry import origins
from everlora.data.task import Task, TaskStream
from everlora.learner.resolve import names as names
from everlora.learner.resolve import protocol_of
from everlora.learner.resolve import read_recipe as read_recipe
from everlora.learner.resolve import resolve as resolve
from everlora.learner.sequential import SequentialLearner
from everlora.metrics.registry import METRICS
from everlora.metrics.scores import ScoreMatrix
from everlora.models.environment import environment
from everlora.models.loading import Loaded, load
from everlora.runtime import world
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec, RunSpec

DEMO: dict[str, Any] = {
    "model": "smollm2-135m",
    "benchmark": "builtin",
    "tasks": ["reviews", "news", "questions"],
    "max_train_samples": 288,
    "max_eval_samples": 32,
    "seed": 1,
}
DEMO_METHODS = ("seqlora", "ella")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        folder: where it is written.
        matrix: the accuracy matrix.
        content: matrix.json as it was written.
    """

    folder: Path
    matrix: ScoreMatrix
    content: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The object that ``everlora run --json`` prints."""
        wanted = ("tasks", "matrix", "metrics", "method", "model", "protocol", "fingerprints")
        known = [k for k in ("base", "general") if k in self.content]
        return {**{k: self.content[k] for k in (*wanted, *known)}, "folder": str(self.folder)}


def load_for(spec: LearnerSpec) -> Loaded:
    """Load the base model that ``spec`` names."""
    hf_logging.disable_progress_bar()
    return load(
        spec.model,
        revision=spec.revision,
        dtype=spec.dtype,
        device=spec.device,
        max_source_length=spec.max_source_length,
        max_new_tokens=spec.max_new_tokens,
        prompt=spec.prompt,
        trust_remote_code=spec.trust_remote_code,
    )


def run(
    spec: RunSpec, out: Path, *, resume: bool = False, progress: Progress | None = None, single: Path | None = None
) -> Result:
    """Follow a benchmark's stream from beginning to end.

    Args:
        spec: resolved settings, see `resolve`.
        out: the run folder.
        resume: go on in a folder that holds this same run.
        progress: told of every step; silent by default.
        single: a finished run that learned each of these tasks alone; its scores make intransigence.

    Raises:
        EverloraError: anything that the caller can mend.
    """
    method = parse(spec.method)
    base = load_for(spec)
    stream = stream_for(spec, base)
    scores = single_task_reference(single, spec.model_dump(mode="json"), stream.tasks) if single else None
    life = begin(spec, method, base, out, resume=resume, progress=progress or Progress())
    if scores and world.is_main():
        take_single(out, single or out, scores)
    return finish(life, life.follow(stream.tasks))


def follow(
    spec: LearnerSpec,
    method: Method,
    base: Loaded,
    tasks: Sequence[Task],
    out: Path,
    *,
    resume: bool = False,
    progress: Progress,
) -> Result:
    """Let a loaded model follow tasks; see `run`."""
    life = begin(spec, method, base, out, resume=resume, progress=progress)
    matrix = life.follow(tasks)
    return finish(life, matrix)


def begin(
    spec: LearnerSpec, method: Method, base: Loaded, out: Path, *, resume: bool = False, progress: Progress
) -> SequentialLearner:
    """Make, or open again, the folder of a learner, and give it to a new life.

    Raises:
        FolderError: the folder holds something else.
        ModelError: the method makes no sense on this kind of model.
    """
    if method.families and base.family.name not in method.families:
        raise ModelError(
            f"{method.name!r} makes sense on models of these families: {', '.join(method.families)}; {spec.model!r} "
            f"is of the family {base.family.name}"
        )
    facts: dict[str, Any] = {
        "settings": {**spec.model_dump(mode="json"), "dtype": _spelt(spec.dtype, base, out)},
        "composition": method.describe(),
    }
    facts["protocol"] = protocol_of(spec, method)
    if where := plugins_used(spec, method):
        facts["origin"] = where
    # One process makes the folder; the others find it made.
    folder = RunFolder(out, facts, resume=resume) if world.is_main() else None
    world.wait()
    folder = folder or RunFolder(out, facts, resume=True, write=False)
    if world.is_main():
        _same_precision(base, folder)
        write_json(out / "environment.json", environment(base))
    return SequentialLearner(base, method, spec, folder, progress)


def plugins_used(spec: LearnerSpec, method: Method) -> list[Origin]:
    """Where the plug-ins of a run are from: its methods, its benchmark, and all metrics that were plugged in."""
    named = [name for name, _ in split_expression(method.expression)] if method.expression else []
    benchmark = [spec.benchmark] if isinstance(spec, RunSpec) else []
    # Tasks may name any metric, and those of the matrix are all written: so all that are from outside count as used.
    return origins(method=named, benchmark=benchmark, metric=METRICS.from_outside())


def _spelt(dtype: str, base: Loaded, out: Path) -> str:
    """How the run in ``out`` spells ``dtype``, if both come to the same weights: ``auto`` is what it chose."""
    try:
        there: str = identified(out)["settings"]["dtype"]
    except (FolderError, KeyError):
        return dtype
    return there if _weights(out) == base.precision.describe()["weights"] else dtype


def _weights(out: Path) -> str | None:
    """The type of the weights that the run in ``out`` was made on; None if that is not known."""
    try:
        found: str = json.loads((out / "environment.json").read_text(encoding="utf-8"))["precision"]["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _same_precision(base: Loaded, folder: RunFolder) -> None:
    """Refuse to go on with other weights than the learned tasks stand on."""
    then, now = _weights(folder.path), base.precision.describe()["weights"]
    if folder.stages() and then not in (None, now):
        raise FolderError(
            f"{folder.path} was learned on {then} weights and would go on with {now}; pass --dtype {then}"
        )


def finish(life: SequentialLearner, matrix: ScoreMatrix) -> Result:
    """Write what a reader of the folder looks for first: matrix.json, the model card, the tokenizer or its like."""
    labels = {
        "method": life.method.name,
        "model": life.spec.model,
        "family": life.base.family.name,
        "task_id_at_inference": life.method.task_id_at_inference,
        "replay": life.method.sees_again,
        "protocol": {**life.folder.facts["protocol"], **life.spec.evaluation.model_dump()},
        "labels": life.folder.stages()[-1].facts["labels"],  # rows of the exported head
    }
    folder, out = life.folder, life.folder.path
    if world.is_main():
        content = folder.write_matrix(matrix, {**life.storage(), **labels, **of_tasks(folder.stages(), matrix.tasks)})
        write_text(out / "README.md", model_card(content, folder.facts, life.base.hub, life.method.adapter))
        life.base.family.processor.save_pretrained(str(out))
    else:
        content = folder.matrix_content(
            matrix, {**life.storage(), **labels, **of_tasks(folder.stages(), matrix.tasks)}
        )
    world.wait()
    return Result(folder=out, matrix=matrix, content=content)


def stream_for(spec: RunSpec, base: Loaded) -> TaskStream:
    """Open the stream that ``spec`` names, in the kind of input that the model reads."""
    stream = open_stream(
        spec.benchmark,
        order=spec.order,
        data_dir=spec.data_dir,
        tasks=spec.tasks,
        seed=spec.stream_seed,
        modality=base.family.modality,
        max_train_samples=spec.max_train_samples,
        max_eval_samples=spec.max_eval_samples,
    )
    return limit_tasks(stream, spec)


def limit_tasks(stream: TaskStream, spec: LearnerSpec) -> TaskStream:
    """Tasks with as many rows, and scored, as settings say.

    Raises:
        DataError: rows are to be counted per class and have none, or the metric is unknown.
        ConfigError: training arguments are for tasks none of which is here.
    """
    if spec.train_of and not set(spec.train_of) & set(stream.names):
        named = ", ".join(spec.train_of)
        raise ConfigError(f"train_of names {named}, and the tasks here are {', '.join(stream.names)}; take it out")
    taken = stream.take(spec.max_train_samples, spec.max_eval_samples)
    tasks = (task.take_of_each(spec.max_train_per_class, spec.max_eval_per_class) for task in taken)
    if spec.metric is not None:
        tasks = (dataclasses.replace(task, metric=spec.metric) for task in tasks)
    return dataclasses.replace(stream, tasks=tuple(tasks))
