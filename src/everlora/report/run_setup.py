"""Makes the parts of a run's page that say how it was made, and what can be done next: data, settings, environment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from everlora.analysis.recorded import RecordedRun
from everlora.archive.commits import TaskCard
from everlora.core.plain import Json
from everlora.report.numbers import counted
from everlora.report.page import Cell, Section, Table, text, without_empty
from everlora.settings.spec import RunSpec

MANY_LABELS = 12


def data_section(run: RecordedRun) -> Section:
    """Return what every task's rows are: how many, which labels, what was left out, and how they are told apart."""
    rows = []
    for stage in run.stages:
        facts = stage.facts
        for name, digest in facts.data.items():
            card = facts.cards.get(name, TaskCard())
            left_out = ", ".join(f"{why}: {n}" for why, n in facts.left_out.get(name, {}).items())
            scored = run.matrix.counts[run.tasks.index(name)] if name in run.tasks else 0
            test = card.rows.get("test") or scored
            rows.append(
                [
                    text(name),
                    Cell(f"{card.rows['train']:,}" if "train" in card.rows else ""),
                    Cell(f"{test:,}" if test else ""),
                    text(_labels(card)),
                    text(card.instruction),
                    text(left_out),
                    Cell(f"{facts.cut:,}" if facts.cut else ""),
                    text(digest),
                ]
            )
    heads = ["task", "training rows", "test rows", "labels", "instruction", "left out", "cut", "digest"]
    caption = "Cut: training texts longer than what is read. Digest: of rows, labels, instruction and metric."
    return Section("data", "Data", tables=[without_empty(Table(heads, rows, caption, "data"))])


def _labels(card: TaskCard) -> str:
    some = card.labels[:MANY_LABELS]
    more = f", and {len(card.labels) - len(some)} more" if len(card.labels) > len(some) else ""
    return ", ".join(some) + more


def setup_section(run: RecordedRun) -> Section:
    """Return settings, the method's composition, hashes, versions, and the command that makes the run again."""
    record, results = run.record, run.results
    pairs = [("run", record.id)]
    if record.protocol:
        pairs.append(("protocol", record.protocol.describe()))
    pairs += [("fingerprint of the scores", key) for key in results.fingerprints.of]
    if results.order_digest:
        pairs.append(("digest of tasks in order", results.order_digest))
    for origin in record.origin:
        named = {key: Path(value).name if key == "file" else value for key, value in origin.items()}
        pairs.append(("method from", ", ".join(f"{key} {value}" for key, value in named.items())))
    if (found := run.environment) is not None:
        pairs += [
            ("machine", f"{found.platform}, {counted(found.threads, 'thread')}"),
            ("processes", str(found.processes)),
            ("Python", found.python),
            ("packages", ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)),
        ]
        if found.precision:
            pairs.append(("precision", f"{found.precision.weights} on {found.precision.device}"))
        if found.base_files and found.base_files.commit:
            pairs.append(("commit of the base model", found.base_files.commit))
    settings = Table(
        ["setting", "value"],
        [[text(key), text(value)] for key, value in _flat(record.settings.model_dump(mode="json"))],
        "Settings, resolved; what is not set is left out.",
        "settings",
        narrow=True,
    )
    parts = Table(
        ["part", "value"],
        [[text(key), text(value)] for key, value in _flat(record.composition.plain())],
        "The method, as it was composed.",
        "method",
        narrow=True,
    )
    return Section(
        "setup", "How it was made", pairs=pairs, tables=[settings, parts], commands=[("make it again", _again(run))]
    )


def _again(run: RecordedRun) -> str:
    """Return the command that makes the run again."""
    folder = shlex.quote(str(run.path))
    if isinstance(run.record.settings, RunSpec):
        return f"everlora run --config {folder}/run.yaml --out NEW"
    return f"everlora history {folder}"


def _flat(values: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield values that are set, by dotted name."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(values, list) and any(isinstance(one, dict) for one in values):
        for k, value in enumerate(values, start=1):
            yield from _flat(value, f"{prefix} {k}")
    elif isinstance(values, list) and values:
        yield prefix, ", ".join(str(one) for one in values)
    elif values is not None and values != []:
        yield prefix, values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)


def history_section(run: RecordedRun) -> Section | None:
    """Return what was done to a learner; None of a run."""
    if not run.acts:
        return None
    rows = [
        [text(act.date), text(act.act), text(", ".join(act.tasks)), text(act.by or ""), text(act.because or "")]
        for act in run.acts
    ]
    table = Table(["date", "what", "tasks", "by", "because"], rows, "", "history")
    return Section("history", "What was done to it", tables=[table])


def next_section(run: RecordedRun) -> Section:
    """Return what a reader may want to do next, as commands."""
    folder = shlex.quote(str(run.path))
    going_on = f"everlora run --config {folder}/run.yaml --out {folder} --resume"
    commands = [] if run.finished or run.acts else [("go on with it", going_on)]
    commands += [
        ("ask it", f'everlora ask {folder} "your text"'),
        ("how it stands", f"everlora status {folder}"),
        ("how updates met the past", f"everlora inspect {folder} --modules"),
        ("use it elsewhere", f"everlora export {folder} --to merged --out EXPORTED"),
        ("set it against others", f"everlora report {folder} OTHER…"),
    ]
    if run.acts:
        commands.insert(0, ("teach it one more task", f"everlora learn {folder} --name NAME --data FILE"))
    return Section("next", "What to do next", commands=commands)
