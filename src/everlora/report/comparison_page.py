"""Makes the page of a comparison: the table in its sections, drawings of it, every task, cost, and papers' numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from everlora.analysis.answers import ScoredRun
from everlora.analysis.comparison import Comparison, Row
from everlora.analysis.comparison import Section as Group
from everlora.analysis.costs import Cost, mean_cost
from everlora.analysis.plain import PLAIN
from everlora.analysis.significance import ENOUGH
from everlora.core.plain import JsonObject
from everlora.literature.reported import PublishedRow
from everlora.report.columns import HEADS, among_best
from everlora.report.comparison_charts import Labelled, intervals, learning_curves, multiples, rows_of, trade
from everlora.report.forms import GROUPS, Format, Papers, legend, printed, written
from everlora.report.numbers import NOTHING, counted, duration, interval, points
from everlora.report.page import Cell, Page, Section, Table, Tile, text
from everlora.runtime.sizes import size

DIFFERENT = "Runs of different protocols stand side by side here, so nothing is set against a best."


def comparison_page(
    runs: Sequence[ScoredRun],
    comparison: Comparison,
    papers: Papers = (),
    left_out: Sequence[str] = (),
    pages: Mapping[Path, str] = MappingProxyType({}),
    analyses: Section | None = None,
) -> Page:
    """Return the page of a comparison.

    Args:
        runs: that stand in it.
        comparison: their table.
        papers: what papers print for the same orders.
        left_out: runs that were not at their end, and why, a line each.
        pages: where the pages of runs are, for links.
        analyses: papers' figures of these runs.
    """
    by_path = {str(run.path): run for run in runs}
    rows = rows_of(comparison)
    labelled = {row.method: [by_path[folder] for folder in row.folders] for row in rows}
    names, tasks = [row.method for row in rows], runs[0].answers.tasks
    glance = [figure for figure in (intervals(comparison), trade(comparison, len(tasks))) if figure is not None]
    spread = [f for f in (multiples(labelled, names), learning_curves(labelled, names)) if f is not None]
    sections = [
        Section("drawn", "At a glance", figures=glance),
        Section(
            "methods",
            "The table",
            tables=[_table(one, comparison) for one in comparison.sections],
            notes=[_sentence(legend(comparison))],
        ),
        Section("runs", "Orders, seeds, stages", figures=spread) if spread else None,
        Section("tasks", "Task by task", tables=[_tasks(rows, tasks)]),
        Section(
            "cost",
            "What it cost",
            tables=[_costs({row.method: mean_cost([Path(f) for f in row.folders]) for row in rows})],
        ),
        analyses,
        _papers(papers) if papers else None,
        _folders(labelled, names, pages),
    ]
    forms = {f"comparison.{end}": written(comparison, papers, form) for form, end in FILES}
    data: JsonObject = {"record": json.loads(written(comparison, papers, "json"))}
    return Page(
        title=_title(runs, comparison),
        kind="a comparison",
        subtitle=f"{counted(len(rows), 'method')} · {counted(len(tasks), 'task')} · {counted(len(runs), 'run')}",
        summary=_summary(comparison),
        alerts=[*left_out, *([] if comparison.protocol else [DIFFERENT])],
        tiles=[_tile(one) for one in comparison.sections] if comparison.protocol else [],
        sections=[one for one in sections if one is not None],
        data=data,
        files=forms,
    )


FILES: tuple[tuple[Format, str], ...] = (("csv", "csv"), ("markdown", "md"), ("latex", "tex"))


def _title(runs: Sequence[ScoredRun], comparison: Comparison) -> str:
    benchmark = str(runs[0].protocol.benchmark or "tasks of one's own")
    model = runs[0].protocol.model
    return f"{benchmark} on {model}" if comparison.protocol else "Several protocols"


def _summary(comparison: Comparison) -> list[str]:
    found = []
    for group in comparison.sections:
        known = [row for row in group.rows if row.alike is not None]
        if group.reference is None or comparison.baseline or len(known) < 2:
            continue
        others = [row for row in known if row.method != group.reference]
        alike = [row.method for row in others if row.alike]
        if all(row.test == "rows" for row in others):
            rest = f"; with fewer than {ENOUGH} runs in common, none of the others can be told from it"
        elif not alike:
            rest = ", surely above " + (f"all {len(others)} others" if len(others) > 1 else "the other")
        else:
            above = len(others) - len(alike)
            rest = f", surely above {above} of the {len(others)} others; {', '.join(alike)} cannot be told from it"
            rest = rest if above else f", and none of the {len(others)} others can be told from it"
        found.append(f"{group.group.capitalize()}: {group.reference} has the highest mean{rest}.")
    return found


def _tile(group: Group) -> Tile:
    best = max(group.rows, key=lambda row: one.mean if (one := row.metrics["oa"]) else -1.0)
    found = best.metrics["oa"]
    return Tile(f"Best mean, {group.group}", points(found.mean if found else None), interval(found), best.method)


def _table(group: Group, comparison: Comparison) -> Table:
    """Return a section of the table; what nothing tells from the best is bold."""
    metrics = [metric for metric in HEADS if any(row.metrics[metric] for row in group.rows)]
    heads = ["method", "runs", *(HEADS[metric] for metric in metrics)]
    tested = len(group.rows) > 1
    if tested:
        heads += [f"OA − {comparison.baseline or 'best'}", "p", "least seen"]
    rows = [
        [*_scores(row, group, metrics, comparison), *(_tests(row, group, comparison) if tested else [])]
        for row in group.rows
    ]
    title, _, meaning = GROUPS[group.group].partition(": ")
    return Table(heads, rows, _sentence(meaning), f"methods {group.group}", title=title.capitalize())


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _scores(row: Row, group: Group, metrics: Sequence[str], comparison: Comparison) -> list[Cell]:
    cells = [text(row.method), Cell(str(row.runs))]
    for metric in metrics:
        found = row.metrics[metric]
        best = metric == comparison.metric and among_best(row, group, comparison)
        kind = "best" if best else "number"
        cells.append(Cell(points(found.mean if found else None), kind=kind, under=interval(found)))
    return cells


def _tests(row: Row, group: Group, comparison: Comparison) -> list[Cell]:
    """Return how a row differs from the reference of its section."""
    if row.method == group.reference:
        return [Cell("baseline" if comparison.baseline else "best"), Cell(NOTHING), Cell(NOTHING)]
    found = row.difference
    shown = NOTHING if found is None else ("≈ " if row.alike else "") + points(found.mean, signed=True)
    p = NOTHING if row.p_corrected is None else "<0.001" if row.p_corrected < 0.001 else f"{row.p_corrected:.3f}"
    only = "of rows only" if row.test == "rows" else ""
    return [Cell(shown, under=interval(found)), Cell(p, under=only), Cell(points(row.detectable))]


def _tasks(rows: Sequence[Row], order: Sequence[str]) -> Table:
    """Return every task's score after the last one, as the mean over runs."""
    tasks = sorted({task for row in rows for task in row.by_task}, key=lambda t: order.index(t) if t in order else 0)
    best = {task: max(row.by_task.get(task, 0.0) for row in rows) for task in tasks}
    shown = [[text(row.method), *(_score(row.by_task.get(task), best[task]) for task in tasks)] for row in rows]
    caption = (
        "Percent right on each task after the last one, mean over orders and seeds; the highest of a task is bold."
    )
    return Table(["method", *tasks], shown, caption, "tasks")


def _score(value: float | None, best: float) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(points(value), heat=value / 100, kind="top" if value == best else "number")


def _costs(found: dict[str, Cost]) -> Table:
    plain = next((found[name] for name in PLAIN if name in found), None)
    against = next((name for name in PLAIN if name in found), None)
    rows = []
    for method, cost in found.items():
        times = f"{cost.train / plain.train:.2f}" if plain and plain.train else ""
        rows.append(
            [
                text(method), Cell(duration(cost.train)), Cell(times), Cell(duration(cost.evaluate)),
                Cell(f"{cost.trained:,.0f}"), Cell(size(cost.memory_bytes)), Cell(f"{cost.stored_rows:,.0f}"),
            ]
        )  # fmt: skip
    heads = [
        "method",
        "training per task",
        f"times {against or 'plain LoRA'}",
        "answering",
        "trained",
        "kept",
        "rows kept",
    ]
    caption = (
        "Means over runs, wall-clock, other work on the machine included. Trained: numbers per task. Kept: at the end."
    )
    return Table(heads, rows, caption, "cost")


def _papers(papers: Papers) -> Section:
    """Return what papers print, marked as theirs, with how their protocols differ."""
    tables, notes = [], []
    for paper, model in dict.fromkeys((one.paper, one.model) for one in papers):
        those = [one for one in papers if (one.paper, one.model) == (paper, model)]
        columns = list(dict.fromkeys(one.column for one in those))
        rows = []
        for method in dict.fromkeys(one.method for one in those):
            found = {one.column: one for one in those if one.method == method}
            rows.append([text(method), *(_published(found.get(column)) for column in columns)])
        title = f"{paper}, {model}"
        tables.append(Table(["method", *columns], rows, _sentence("; ".join(those[0].differs)), "papers", title=title))
        remarks = dict.fromkeys(f"{paper}, {one.method}: {one.note}" for one in those if one.note)
        notes += [_sentence(remark) for remark in remarks]
    return Section(
        "papers",
        "Theirs: what papers print",
        text=[
            "The large numbers here were not measured by us. They are printed in papers, of overall accuracy on the "
            "same orders of tasks, under other protocols, which each table names; ours stand beneath where we have "
            "them."
        ],
        tables=tables,
        notes=notes,
    )


def _published(one: PublishedRow | None) -> Cell:
    if one is None:
        return Cell("")
    return Cell(printed(one), under=f"ours {points(one.ours)}" if one.ours is not None else "", hint=one.where)


def _folders(labelled: Labelled, names: Sequence[str], pages: Mapping[Path, str]) -> Section:
    rows = [
        [
            text(method),
            text(" ".join(run.answers.tasks)),
            Cell(str(run.answers.seed)),
            text(run.hash),
            text(" ".join(run.fingerprints)),
            Cell(str(run.path), kind="name", link=quote(pages[run.path]) if run.path in pages else ""),
        ]
        for method in names
        for run in labelled[method]
    ]
    heads = ["method", "order", "seed", "protocol", "fingerprint", "folder"]
    return Section(
        "folders", "The runs", tables=[Table(heads, rows, "Every run of this page.", "folders", narrow=True)]
    )
