"""Finds the numbers that papers print for the orders of our runs, with how their protocols differ from ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from everlora.analysis.answers import ScoredRun
from everlora.analysis.comparison import Section
from everlora.core.plain import Json, JsonObject
from everlora.literature.published import Published, published
from everlora.settings import protocol
from everlora.settings.spec import RawSettings, RunSpec, check, merge
from everlora.settings.training import TRAIN_DEFAULTS

ROWS = ("max_train_samples", "max_train_per_class", "max_eval_samples", "max_eval_per_class")

NUMBERED = ("standard", "long", "trace")
"""Benchmarks that share one count of orders, 1 to 7; other benchmarks' order 1 is another order."""


@dataclass(frozen=True)
class PublishedRow:
    """Holds one printed number, with ours.

    Attributes:
        paper, source, where, model, method, column, note: see `everlora.literature.published.Published`.
        printed: the number.
        ours: the mean over our seeds; None without a run of that method.
        differs: how their protocol is another one, in words.
    """

    paper: str
    source: str
    where: str
    model: str
    method: str
    column: str
    printed: float
    ours: float | None
    note: str
    differs: list[str]

    def as_json(self) -> JsonObject:
        """Return the object that ``everlora compare --with-papers --json`` prints."""
        return {"theirs" if key == "printed" else key: value for key, value in asdict(self).items()}


def published_rows(
    runs: Sequence[ScoredRun], sections: Sequence[Section], orders: Mapping[int, Sequence[str]], benchmark: str
) -> list[PublishedRow]:
    """Find what papers print for the orders that were run.

    Args:
        runs: ours, all of one protocol.
        sections: of our table, which holds our numbers.
        orders: of the benchmark, by number.
        benchmark: its name, the column of a mean over all its orders.
    """
    labels = {number: " ".join(names) for number, names in orders.items()}
    done = {number for number, label in labels.items() if any(run.answers.order == label for run in runs)}
    columns = {f"order {number}": [labels[number]] for number in sorted(done) if benchmark in NUMBERED}
    if len(done) == len(labels) > 1 or (done and benchmark not in NUMBERED):
        columns[benchmark] = [labels[number] for number in sorted(done)]
    ours = {row.method: row.by_order for section in sections for row in section.rows}
    once: dict[tuple[str, str, str, str, float], Published] = {}  # a number that a paper prints twice counts once
    for one in published():
        if one.metric == "oa" and one.column in columns:
            once.setdefault((one.paper, one.model, one.method, one.column, one.value), one)
    return [
        PublishedRow(
            paper=one.paper,
            source=one.source,
            where=one.where,
            model=one.model,
            method=one.method,
            column=one.column,
            printed=one.value,
            ours=_mean(_of(one.method, ours), columns[one.column]),
            note=one.note,
            differs=differs(one, runs[0]),
        )
        for one in once.values()
    ]


def differs(one: Published, ours: ScoredRun) -> list[str]:
    """Say how the protocol behind a printed number is another one than ours, in words: all that its hash is of."""
    settings = ours.settings.model_dump(mode="json")
    words = [] if one.model == settings["model"] else [f"model {one.model}, ours {settings['model']}"]
    words += [f"all rows, ours {key}={settings[key]}" for key in ROWS if settings[key] is not None]
    if not one.protocol:
        return [*words, "their training is not known"]
    # A preset without a rate leaves it to the method's form.
    preset, mine = _canonical(protocol.read(one.protocol)[1].settings), _canonical({**settings, "protocol": None})
    return words + [
        "prompt is another"
        if key == "prompt"
        else f"{key.rpartition('.')[2]} {preset.get(key, 'not set')}, ours {mine.get(key, 'not set')}"
        for key in sorted({*preset, *mine})
        if preset.get(key) != mine.get(key)
        and key not in (*ROWS, "evaluation.schedule")
        and (key != "train.learning_rate" or key in preset)
    ]


def _canonical(settings: RawSettings) -> JsonObject:
    """Return settings with all that they leave to defaults, as the hash of a protocol takes them, by dotted name."""
    known = {key: value for key, value in settings.items() if key in RunSpec.model_fields}
    complete = check(RunSpec, {"model": "", **merge({"train": dict(TRAIN_DEFAULTS)}, known)})
    return _flat(protocol.canonical(complete.model_dump(mode="json"), 0.0))


def _of(method: str, ours: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    """Return our numbers of the method that a paper names: under its own name, or with the options of that name."""
    like = [label for label in ours if label == method] or [
        label for label in ours if label.partition("(")[0].partition(" [")[0] == method
    ]
    return ours[like[0]] if len(like) == 1 else {}


def _mean(by_order: Mapping[str, float], orders: Sequence[str]) -> float | None:
    known = [by_order[order] for order in orders if order in by_order]
    return sum(known) / len(known) if len(known) == len(orders) else None


def _flat(values: Mapping[str, Json], prefix: str = "") -> JsonObject:
    flat: JsonObject = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
