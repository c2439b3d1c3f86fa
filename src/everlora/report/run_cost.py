"""Makes the part of a run's page about cost: time, memory and bytes kept, beside plain LoRA where a run of it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from everlora.analysis.costs import mean_cost
from everlora.analysis.plain import PLAIN, plain_run
from everlora.analysis.recorded import RecordedRun
from everlora.report import charts
from everlora.report.numbers import NOTHING, counted, duration
from everlora.report.page import Cell, Figure, Section, Table, text
from everlora.runtime.sizes import size
from everlora.settings.spec import RunSpec

AGAINST_PLAIN = "Beside plain LoRA"


def cost_section(run: RecordedRun) -> Section:
    """Return what every task took: time, steps, and what is kept after it."""
    rows, drawn = [], list[charts.Row]()
    for stage in run.stages:
        name, train, score = stage.facts.name, stage.train_seconds, stage.evaluate_seconds
        per_step = f"{1000 * train / stage.steps:.0f} ms" if stage.steps else ""
        kept = stage.facts.holdings.memory_bytes if stage.facts.holdings else None
        rows.append(
            [
                text(name), Cell(duration(train)), Cell(str(stage.steps) if stage.steps else ""), Cell(per_step),
                Cell(duration(score)), Cell("" if kept is None else size(kept)),
            ]
        )  # fmt: skip
        drawn += [
            {"task": name, "what": "training", "seconds": train},
            {"task": name, "what": "answering", "seconds": score},
        ]
    heads = ["task", "training", "steps", "per step", "answering", "kept after it"]
    table = Table(heads, rows, "Kept: what the next task needs of all earlier ones, in bytes.", "cost")
    results, total = run.results, sum(s.train_seconds + s.evaluate_seconds for s in run.stages)
    pairs = [
        ("whole run", duration(total)),
        ("numbers trained per task", f"{results.adapter_elements:,}"),
        ("numbers kept of past updates", f"{results.stored_elements:,}"),
        ("kept for the next task", size(results.memory_bytes)),
    ]
    if (peak := max((stage.facts.peak_bytes or 0 for stage in run.stages), default=0)) > 0:
        pairs.append(("most memory of the process", size(peak)))
    if results.stored_rows:
        pairs.append(("rows of data kept", f"{counted(results.stored_rows, 'row')}, {size(results.stored_row_bytes)}"))
    compared, notes, commands = _against_plain(run)
    tables = [table, *compared]
    figures = [_times(run, drawn, table)]
    return Section("cost", "What it cost", figures=figures, tables=tables, pairs=pairs, notes=notes, commands=commands)


def _against_plain(run: RecordedRun) -> tuple[list[Table], list[str], list[tuple[str, str]]]:
    """Return the cost of a run beside that of plain LoRA, or what to type where there is no such run beside it."""
    if not isinstance(run.record.settings, RunSpec) or run.record.composition.name in PLAIN:
        return [], [], []
    plain = plain_run(run.path, run.record)
    if plain is None:
        again = f"everlora run --config {shlex.quote(str(run.path))}/run.yaml --method {PLAIN[0]} --out FOLDER"
        why = "No run of plain LoRA by the same settings lies in the folder of this one, to set its cost against."
        return [], [why], [("make one, beside it", again)]
    own, other = mean_cost([run.path]), mean_cost([plain])
    kinds: list[tuple[str, Callable[[float], str], float | None, float | None]] = [
        ("training per task", duration, own.train, other.train),
        ("per step", lambda seconds: f"{1000 * seconds:.0f} ms", own.step, other.step),
        ("per epoch", duration, own.epoch, other.epoch),
        ("answering per task", duration, own.evaluate, other.evaluate),
        ("most memory of the process", size, own.peak_bytes, other.peak_bytes),
        ("kept for the next task", size, own.memory_bytes, other.memory_bytes),
        ("numbers trained per task", lambda count: f"{count:,.0f}", own.trained, other.trained),
    ]
    rows = [
        [text(name), Cell(show(a)), Cell(show(b)), Cell(f"{a / b:.2f}" if b else NOTHING)]
        for name, show, a, b in kinds
        if a is not None and b is not None
    ]
    how = "Wall-clock, other work on the machine included; memory of a process that made several runs is its highest."
    return (
        [Table(["cost", "this run", f"plain LoRA, {plain.name}", "times"], rows, how, "plain", title=AGAINST_PLAIN)],
        [],
        [],
    )


def _times(run: RecordedRun, rows: Sequence[charts.Row], table: Table) -> Figure:
    alt = charts.alt()
    names = [stage.facts.name for stage in run.stages]
    kinds = alt.Scale(domain=["training", "answering"], range=[charts.HUES[0], charts.HUES[4]])
    chart = alt.Chart(charts.data(rows)).mark_bar(height={"band": 0.62}).encode(
        y=alt.Y("task:N", sort=names, title=None), x=alt.X("seconds:Q", title="seconds"),
        color=alt.Color("what:N", title=None, scale=kinds, legend=alt.Legend(orient="top")),
        order=alt.Order("what:N", sort="descending"),
    ).properties(width=charts.WIDTH - 150, height=max(50, 24 * len(names)))  # fmt: skip
    how = "Wall-clock time on the machine named below, other work on it included."
    drawn = charts.svg(chart, "Seconds of training and answering per task")
    return Figure("time", "Time per task", drawn, how, table, repeated=True)
