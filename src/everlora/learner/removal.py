"""Takes the update of one task out of a learner whose past is a sum, as far as its folder says anything of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from everlora.adapters.files import PREFIX, WEIGHTS
from everlora.archive.atomic import follow_umask
from everlora.archive.commits import Baseline, Evaluation, ProbedRise
from everlora.archive.committed import PREDICTIONS, Committed
from everlora.archive.exchange import list_tasks
from everlora.archive.forecast import Forecast
from everlora.archive.manifest import BEFORE, COMMIT
from everlora.archive.root import sha256
from everlora.archive.schema import read_json, write
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.data.task import Task
from everlora.learner.past import copy_stage, seal_stage, sealed
from everlora.models.families import Classifier, Family
from everlora.training import memory

Rows = dict[str, list[int]]


def check_removable(method: Method, stages: Sequence[Committed], number: int) -> None:
    """Refuse to take out a task that is not held by its own update alone.

    Raises:
        ConfigError: why, and what to do.
    """
    name, why = stages[number - 1].facts.name, None
    if (holder := holder_of(stages, number)) is not None:
        raise ConfigError(
            f"{name!r} was compacted into one update with other tasks ({holder!r}); none can be taken out"
        )
    if number == len(stages):
        return  # nothing was learned on top of it
    if method.consolidator.rule == "continue":
        why = "trains one adapter on and on, so that a task has no update of its own"
    elif method.merge is not None:
        why = "merges the tasks' updates, and merged later ones with it"
    elif method.consolidator.rule == "keep" and not method.independent_tasks:
        why = "learned the later tasks on top of it"
    elif not method.adapter.low_rank:
        why = f"trains one {method.adapter.noun}, which is no sum of updates"
    elif memory.size(remembered := memory.read(stages[-1].path)):
        parts = ", ".join(part for part, sites in remembered.items() if memory.size({part: sites}))
        why = f"remembers more of a task than its update ({parts}), which later tasks' memory is made of, too"
    if why:
        raise ConfigError(
            f"{method.name!r} {why}; {name!r} can be forgotten by learning the later tasks again: give their data "
            f"(--data TASK=FILE) and --rebuild"
        )


def holder_of(stages: Sequence[Committed], number: int) -> str | None:
    """Return the task whose update holds that of a task and of others since they were compacted; None if none does."""
    facts = stages[number - 1].facts
    return facts.within or next((facts.name for one in stages if one.facts.within == facts.name), None)


def remove_task(
    stages: Sequence[Committed], number: int, tasks: Sequence[Task], place: Path, family: Family, *, own_heads: bool
) -> None:
    """Write the tasks behind one into a prepared learner as if it had not been there, their updates as they are.

    Args:
        stages: of the learner.
        number: of the task that is taken out, from 1.
        tasks: all tasks, in order.
        place: the prepared learner, which holds the tasks before it.
        family: of the base model, whose head may have rows of the task.
        own_heads: whether each task has a head of its own.
    """
    name, remaining = stages[number - 1].facts.name, [task for k, task in enumerate(tasks) if k != number - 1]
    rows: Rows = {}
    labels: list[str] = []
    if isinstance(family, Classifier) and not own_heads:
        labels, rows = family.plan_rows(remaining)
    for stage in stages[number:]:
        facts, scores = sealed(stage)
        folder = copy_stage(stage, place, facts.number - 1)
        changed = {
            "number": facts.number - 1,
            "row": _without(facts.row, number),
            "holdings": None,  # is measured again
            "probed": _unseen(facts.probed, name),
            "forecast": _unforeseen(facts.forecast, name),
            "written_rows": {one: rows for one, rows in (facts.written_rows or {}).items() if one != name} or None,
        }
        if rows:
            changed |= _take_rows_out(folder, stage, stages, rows, labels, str(family.head))
        for predictions in (folder / PREDICTIONS, folder / "evaluation-1" / PREDICTIONS):
            _drop_answers(predictions, name)
        seal_stage(folder, facts.model_copy(update=changed), _scores(scores, number))


def drop_baseline(place: Path, names: Sequence[str]) -> None:
    """Drop from a prepared learner what the base model answered to tasks before the first was learned."""
    before = place / BEFORE
    if not (before / COMMIT).is_file():
        return
    facts = read_json(Baseline, before / COMMIT)
    base, data = ({n: v for n, v in known.items() if n not in names} for known in (facts.base, facts.data))
    if (base, data) == (facts.base, facts.data):
        return
    if base or facts.general is not None:
        for name in names:
            _drop_answers(before / PREDICTIONS, name)
        files = {file: sha256(before / file) for file in facts.files}
        write(before / COMMIT, facts.model_copy(update={"base": base, "data": data, "files": files}))
    else:
        shutil.rmtree(before)
    list_tasks(place)


def _take_rows_out(
    folder: Path, stage: Committed, stages: Sequence[Committed], rows: Rows, labels: list[str], head: str
) -> dict[str, object]:
    """Give the saved head of a task the rows that are left, in their new order; return what COMMIT says of them."""
    until = [one for one in stages[: stage.facts.number] if any(name in rows for name in one.facts.data)]
    old_of = {
        new: old
        for one in until
        for name in one.facts.data
        for new, old in zip(rows[name], one.facts.label_rows[name], strict=True)
    }
    order = [old_of[new] for new in range(len(old_of))]
    tensors = load_file(folder / WEIGHTS)
    for kind in ("weight", "bias"):
        key = f"{PREFIX}{head}.{kind}"
        if key in tensors:
            tensors[key] = tensors[key][order].contiguous()
    _replace(folder / WEIGHTS, tensors)
    return {"labels": labels[: len(order)], "label_rows": {name: rows[name] for name in stage.facts.data}}


def _replace(file: Path, tensors: dict[str, Tensor]) -> None:
    file.unlink()  # it may be the former learner's under another name
    save_file(tensors, file, metadata={"format": "pt"})
    follow_umask(file)


def _drop_answers(predictions: Path, name: str) -> None:
    """Drop the answers to a task from a file."""
    if not predictions.is_file():
        return
    lines = predictions.read_text(encoding="utf-8").splitlines(keepends=True)
    predictions.unlink()
    predictions.write_text("".join(line for line in lines if json.loads(line)["task"] != name), encoding="utf-8")


def _scores(scores: Evaluation | None, number: int) -> Evaluation | None:
    if scores is None:
        return None
    changed = {"row": _without(scores.row, number), "counts": _without(scores.counts, number)}
    return scores.model_copy(update={"number": scores.number - 1, **changed})


def _without(values: list[Any], number: int) -> list[Any]:
    return [*values[: number - 1], *values[number:]]


def _unseen(probed: ProbedRise | None, name: str) -> ProbedRise | None:
    if probed is None:
        return None
    return probed.model_copy(update={"losses": {k: v for k, v in probed.losses.items() if k != name}})


def _unforeseen(made: Forecast | None, name: str) -> Forecast | None:
    if made is None:
        return None
    known = {
        "risks": [one for one in made.risks if one.task != name],
        "lesser": {one: nats for one, nats in made.lesser.items() if one != name},
        "unknown": [n for n in made.unknown if n != name],
    }
    return made.model_copy(update=known)
