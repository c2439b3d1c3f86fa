"""Hands a learner on to other tools: as a whole model, or as one adapter of chosen rank with what that loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from everlora.analysis.runs import Run
from everlora.archive.folder import read_run
from everlora.core.errors import ConfigError, EverloraError, nearest
from everlora.core.updates import LowRankUpdates
from everlora.export import handover
from everlora.export import model as exporting
from everlora.export.targets import DTYPES, Target
from everlora.learner import experiment
from everlora.learner.resolve import refuse_code, resolve
from everlora.learner.same_base import check_base
from everlora.models.loading import Loaded
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec, RawSettings, RunSpec


@dataclass(frozen=True)
class WrittenAdapter:
    """Holds an adapter that was written, and what that lost; see `everlora.export.model`.

    Attributes:
        rank: the largest of its modules.
        truncation: relative errors of the updates.
        logits: how far the logits are from the exact ones; None if they could not be compared.
    """

    rank: int
    truncation: Mapping[str, float]
    logits: Mapping[str, float] | None


@dataclass(frozen=True)
class Exported:
    """Holds what was written for another tool.

    Attributes:
        folder: where.
        to: the tool.
        adapter: None where it is a whole model.
        serve: commands that serve it.
        converted: whether llama.cpp's converter has made its file already.
    """

    folder: Path
    to: Target
    adapter: WrittenAdapter | None
    serve: list[str]
    converted: bool


def export(
    path: Path,
    out: Path,
    *,
    to: Target | None = None,
    rank: int | None = None,
    dtype: str = "fp32",
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a learner for another tool; the learner stays as it is.

    Args:
        path: its folder.
        out: a folder that is empty, or not there.
        to: who is to take it; by default a whole model, or an adapter of peft where a rank is given.
        rank: of the adapter; by default that of all that was learned, as far as the tool takes it.
        dtype: of a whole model: ``fp32`` is exact, ``bf16`` and ``fp16`` are rounded.
        here: settings of this process: ``device``, ``trust_remote_code``, ``data_dir``, and ``model``, where the base
            model is found now.
        progress: is shown what is done.

    Raises:
        EverloraError: what does not go together, a learner that is no single model, or a place that holds something.
    """
    target, shown = chosen(to, rank, dtype), progress or Progress()
    record, found = read_run(path), Run.read(path)
    exporting.check_empty(out)
    exporting.check_exportable(found)
    spec = settings_of(found, path, here or {})
    shown.phase("loading the base model", 1)
    base = experiment.load_for(spec, path)
    check_base(base, path)
    shown.phase("writing", 1)
    written: WrittenAdapter | None = None
    if target in ("merged", "llama-cpp"):
        exporting.write_model(found, base, out, dtype)
    else:
        written = write_adapter(found, base, spec, out, rank or handover.default_rank(target, rank_of(found)))
    shown.done()
    name, revision = path.resolve().name, record.settings.revision or (base.files.commit if base.files else None)
    lines = handover.serving_lines(
        target, out, base.hub or base.name, name, written.rank if written else None, revision
    )
    converted = target == "llama-cpp" and handover.convert(out) is not None
    return Exported(out, target, written, lines, converted)


def rank_of(found: Run) -> int:
    """Return the rank at which nothing that was learned is lost."""
    past = found.past()
    return max((past.factors(name).rank for name in past.sites), default=1)


def write_adapter(found: Run, base: Loaded, spec: LearnerSpec, out: Path, rank: int) -> WrittenAdapter:
    """Write a learner as one adapter of at most ``rank``; return what that has lost."""
    sites, lost = exporting.merged_adapter(found, rank)
    written = WrittenAdapter(max(site.rank for site in sites.values()), lost, _logits(found, base, spec, sites))
    exporting.write_adapter(found, base, sites, lost["error"], out)
    return written


def chosen(to: str | None, rank: int | None, dtype: str) -> Target:
    """Return what is written, as options ask.

    Raises:
        ConfigError: an unknown tool or type, or options that do not go together.
    """
    if rank is not None and rank < 1:
        raise ConfigError(f"--rank must be at least 1, not {rank}")
    named = to or ("merged" if rank is None else "peft")
    target: Target | None = next((one for one in get_args(Target) if one == named), None)
    if target is None:
        raise ConfigError(f"unknown tool {named!r}{nearest(named, get_args(Target))}")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown type {dtype!r}{nearest(dtype, DTYPES)}")
    if target in ("merged", "llama-cpp") and rank is not None:
        raise ConfigError(f"--to {target} writes a whole model, which has no rank; leave --rank out")
    if target in ("peft", "vllm") and dtype != "fp32":
        raise ConfigError(f"--to {target} writes an adapter in fp32; leave --dtype out")
    return target


def settings_of(found: Run, path: Path, settings: RawSettings) -> LearnerSpec:
    """Return a run's settings with those of this process over them."""
    kind = RunSpec if isinstance(found.settings, RunSpec) else LearnerSpec
    # The very weights that were learned on: what `auto` chose then, it need not choose on this machine.
    here = {**settings, "device": settings.get("device") or "auto", "dtype": found.weights()}
    recorded = found.settings.model_dump(mode="json") | {"evaluation": {}}  # nothing is evaluated
    learned_with = refuse_code(recorded, here, path / "run.yaml")
    return resolve(kind, learned_with, {k: v for k, v in here.items() if k in kind.model_fields})


def _logits(run: Run, base: Loaded, spec: LearnerSpec, sites: LowRankUpdates) -> dict[str, float] | None:
    """Compare logits on the run's data, where they are at hand and the base can hold what was learned."""
    if not isinstance(spec, RunSpec) or exporting.quantised(base):
        return None
    try:
        stream = experiment.stream_for(spec, base)
    except EverloraError:
        return None
    known = {stage.facts.name for stage in run.stages}
    tasks = [task for task in stream.tasks if task.name in known] or list(stream.tasks)
    return exporting.compare_logits(run, base, sites, tasks)
