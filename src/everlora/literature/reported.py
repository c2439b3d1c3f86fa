"""Papers' numbers beside ours: marked as theirs, with what differs between the protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from everlora.analysis.answers import ScoredRun
from everlora.literature.published import Published, published
from everlora.settings import protocol
from everlora.settings.spec import RunSpec, check, merge
from everlora.settings.training import TRAIN_DEFAULTS

ROWS = ("max_train_samples", "max_train_per_class", "max_eval_samples", "max_eval_per_class")

NUMBERED = ("standard", "long", "trace")
"""Benchmarks that share one count of orders, 1 to 7; other benchmarks' order 1 is another order."""


def published_rows(
    runs: Sequence[ScoredRun],
    sections: Sequence[Mapping[str, Any]],
    orders: Mapping[int, Sequence[str]],
    benchmark: str,
) -> list[dict[str, Any]]:
    """What papers print for the orders that were run.

    Args:
        runs: ours, all of one protocol.
        sections: of our table, for the numbers to stand beside.
        orders: of the benchmark, by number.
        benchmark: its name, the column of a mean over all its orders.

    Returns:
        One entry per printed number: ``paper``, ``source``, ``where``, ``model``, ``method``, ``column``,
        ``theirs``, ``ours`` (mean over our seeds, None without a run of that method), ``note``, and ``differs``: how
        their protocol is another one, in words.
    """
    labels = {number: " ".join(names) for number, names in orders.items()}
    done = {number for number, label in labels.items() if any(run.answers.order == label for run in runs)}
    columns = {f"order {number}": [labels[number]] for number in sorted(done) if benchmark in NUMBERED}
    if len(done) == len(labels) > 1 or (done and benchmark not in NUMBERED):
        columns[benchmark] = [labels[number] for number in sorted(done)]
    ours = {row["method"]: row["by_order"] for section in sections for row in section["rows"]}
    once: dict[tuple[Any, ...], Published] = {}  # a number that a paper prints in two tables stands once
    for one in published():
        if one.metric == "oa" and one.column in columns:
            once.setdefault((one.paper, one.model, one.method, one.column, one.value), one)
    return [
        {
            "paper": one.paper,
            "source": one.source,
            "where": one.where,
            "model": one.model,
            "method": one.method,
            "column": one.column,
            "theirs": one.value,
            "ours": _mean(_of(one.method, ours), columns[one.column]),
            "note": one.note,
            "differs": differs(one, runs[0]),
        }
        for one in once.values()
    ]


def differs(one: Published, ours: ScoredRun) -> list[str]:
    """How the protocol behind a printed number is another one than ours, in words: all that its hash is of."""
    said = [] if one.model == ours.settings.get("model") else [f"model {one.model}, ours {ours.settings.get('model')}"]
    said += [f"all rows, ours {key}={ours.settings[key]}" for key in ROWS if ours.settings.get(key) is not None]
    if not one.protocol:
        return [*said, "their training is not known"]
    # A preset without a rate leaves it to the method's form.
    preset, mine = (_flat(protocol.canonical(_complete(settings), 0.0)) for settings in _both(one, ours))
    return said + [
        "prompt is another"
        if key == "prompt"
        else f"{key.rpartition('.')[2]} {preset.get(key, 'not set')}, ours {mine.get(key, 'not set')}"
        for key in sorted({*preset, *mine})
        if preset.get(key) != mine.get(key)
        and key not in (*ROWS, "evaluation.schedule")
        and (key != "train.learning_rate" or key in preset)
    ]


def _both(one: Published, ours: ScoredRun) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return protocol.read(one.protocol)[1].settings, {**ours.settings, "protocol": None}


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with all that they leave to defaults."""
    known = {key: value for key, value in settings.items() if key in RunSpec.model_fields}
    return check(RunSpec, {"model": "", **merge({"train": dict(TRAIN_DEFAULTS)}, known)}).model_dump(mode="json")


def _of(method: str, ours: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    """Our numbers of the method that a paper names: under its own name, or the one with options of that name."""
    like = [label for label in ours if label == method] or [
        label for label in ours if label.partition("(")[0].partition(" [")[0] == method
    ]
    return ours[like[0]] if len(like) == 1 else {}


def _mean(by_order: Mapping[str, float], orders: Sequence[str]) -> float | None:
    known = [by_order[order] for order in orders if order in by_order]
    return sum(known) / len(known) if len(known) == len(orders) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
