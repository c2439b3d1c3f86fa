"""Writes a comparison of runs in several forms: as a table of texts, Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Literal, TypeAlias

from everlora.report.columns import DEFAULT, HEADS, Value, all_rows, among_best, columns, order_heads

if TYPE_CHECKING:
    from everlora.analysis.comparison import Comparison, Row, Section
    from everlora.literature.reported import PublishedRow

GROUPS = {
    "replay-free": "replay-free: no data of earlier tasks, no task id",
    "replay": "replay: data of earlier tasks are kept or seen again",
    "task id": "task id: told at inference which task a row belongs to",
}
"""The sections of every table of methods, and what they mean."""
Papers: TypeAlias = "Sequence[PublishedRow]"
Names: TypeAlias = "Sequence[str] | None"
"""Columns that were chosen; None for those that a form has by itself."""
Format = Literal["table", "markdown", "csv", "latex", "json"]
FORMAT_HELP = "How the table is printed: table, markdown, csv, latex, json."
LEGEND = """mean over runs (seeds x orders) and 95 % interval (bootstrap over runs, then over test rows; too short \
where runs are few)"""
COMPARISON = (
    "{reference}: paired difference in OA over common runs and rows; ≈: cannot be told from it at 5 % (t of runs and "
    "rows together, p corrected over the methods: {correction}); seen: the smallest difference that these runs show "
    "with a chance of 80 %; rows in their section by name"
)
ROWS_ONLY = "(rows): fewer than 3 common runs, so p is of other test rows only and tells nothing apart"


def written(table: Comparison, papers: Papers, form: Format, names: Sequence[str] | None = None) -> str:
    """Return a comparison in one of the forms, with what papers print for its orders, and with chosen columns."""
    return FORMS[form](table, papers, names)


def _name(row: Row) -> str:
    return " ".join(row.method.split())  # it may hold a prompt, with its lines


def _rows(table: Comparison, section: Section, names: Sequence[str]) -> list[list[str]]:
    known = columns(table, names)
    return [[_name(row), *(one.show(row, section) for one in known)] for row in section.rows]


def _heads(table: Comparison, names: Sequence[str]) -> list[str]:
    return ["method", *(one.head for one in columns(table, names))]


PAPER_COLUMNS = ["method", "of", "theirs", "ours", "paper", "model"]


def _paper_rows(papers: Papers) -> list[list[str]]:
    return [
        [
            one.method,
            one.column,
            printed(one),
            "–" if one.ours is None else f"{one.ours:.1f}",
            f"{one.paper}, {one.where}" + (f" ({one.note})" if one.note else ""),
            one.model,
        ]
        for one in papers
    ]


def printed(one: PublishedRow) -> str:
    """Return a paper's number as the paper prints it: with one digit, or with two."""
    return f"{one.printed:.{1 if round(one.printed, 1) == one.printed else 2}f}"


def _differing(papers: Papers) -> list[str]:
    """Return per paper and model one line of what differs between its protocol and ours."""
    differing = {f"{one.paper} ({one.model})": one.differs for one in papers}
    return [f"{paper}: {'; '.join(differs)}" for paper, differs in differing.items()]


TITLE = "THEIRS, printed in papers under other protocols; ours beside them"


def _aligned(columns: list[str], body: list[list[str]]) -> list[str]:
    rows = [columns, *body]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    texts = ["  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [texts[0], "─" * (sum(widths) + 2 * len(widths) - 2), *texts[1:], ""]


def _plain(table: Comparison, papers: Papers, names: Names = None) -> str:
    lines = []
    for section in table.sections:
        lines += [
            GROUPS[section.group],
            "",
            *_aligned(_heads(table, names or DEFAULT), _rows(table, section, names or DEFAULT)),
        ]
    if published_rows := _paper_rows(papers):
        lines += [TITLE, "", *_aligned(PAPER_COLUMNS, published_rows), *_differing(papers), ""]
    return "\n".join([*lines, legend(table, names)])


def _piped(columns: list[str], body: list[list[str]]) -> list[str]:
    rows = ["| " + " | ".join(word.replace("|", "\\|") for word in row) + " |" for row in (columns, *body)]
    return [rows[0], "|---|" + "--:|" * (len(columns) - 1), *rows[1:], ""]


def _markdown(table: Comparison, papers: Papers, names: Names = None) -> str:
    lines = []
    for section in table.sections:
        body = _piped(_heads(table, names or DEFAULT), _rows(table, section, names or DEFAULT))
        lines += [f"**{GROUPS[section.group]}**", "", *body]
    if published_rows := _paper_rows(papers):
        lines += [
            f"**{TITLE}**",
            "",
            *_piped(PAPER_COLUMNS, published_rows),
            *(f"- {line}" for line in _differing(papers)),
            "",
        ]
    return "\n".join([*lines, legend(table, names)])


def _csv(table: Comparison, papers: Papers, names: Names = None) -> str:
    """Return one line per method; every figure in its own column. Papers' numbers are of the group ``theirs``."""
    if names is not None:
        return _chosen_csv(table, names)
    figures = [f"{metric}_{part}" for metric in (*HEADS, "difference") for part in ("mean", "low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [*figures, "common", "p", "p_corrected", "test", "detectable", "alike"]
    writer.writerow(
        ["group", "method", "seeds", "runs", *heads, "protocol", "fingerprint", "source", "differs", "note"]
    )
    for section in table.sections:
        for row in section.rows:
            intervals = [*(row.metrics[metric] for metric in HEADS), row.difference]
            values = [number for one in intervals for number in (astuple(one) if one else ("", "", ""))]
            tests = (row.common, row.p, row.p_corrected, row.test, row.detectable, row.alike)
            found = ["" if test is None else test for test in tests]
            made = (" ".join(row.protocols), " ".join(row.fingerprints))
            seeds = " ".join(map(str, row.seeds))
            writer.writerow([section.group, row.method, seeds, row.runs, *values, *found, *made, "", "", ""])
    for one in papers:
        blank = [""] * (len(heads) - 1)
        source = f"{one.source}: {one.where}, {one.model}, {one.column}"
        origin = ["", "", source, "; ".join(one.differs), one.note]
        writer.writerow(["theirs", one.method, "", "", one.printed, *blank, *origin])
    return text.getvalue().rstrip("\n")


def _chosen_csv(table: Comparison, names: Sequence[str]) -> str:
    """Return chosen columns alone, each as the numbers that it holds."""
    text = io.StringIO()
    known, rows = columns(table, names), [(section, row) for section in table.sections for row in section.rows]
    found: list[dict[str, Value]] = [
        {"group": section.group, "method": row.method, **{k: v for one in known for k, v in one.values(row).items()}}
        for section, row in rows
    ]
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue().rstrip("\n")


def _latex(table: Comparison, papers: Papers, names: Names = None) -> str:
    """Return a table for the package booktabs; bold is what nothing tells from the best of its section."""
    known = columns(table, names or DEFAULT)
    lines = ["% needs \\usepackage{booktabs}", r"\begin{tabular}{l" + "r" * len(known) + "}", r"\toprule"]
    lines += [" & ".join(map(_escaped, _heads(table, names or DEFAULT))) + r" \\"]
    for section in table.sections:
        title = _escaped(GROUPS[section.group])
        lines += [r"\midrule", rf"\multicolumn{{{len(known) + 1}}}{{l}}{{{title}}} \\", r"\addlinespace"]
        for row in section.rows:
            best = among_best(row, section, table)
            cells = [_bold(one.show(row, section), best and one.of_best) for one in known]
            lines.append(" & ".join([_escaped(_name(row)), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if published_rows := _paper_rows(papers):
        lines += [rf"% {TITLE}", r"\begin{tabular}{llrrll}", r"\toprule", " & ".join(PAPER_COLUMNS) + r" \\"]
        lines += [r"\midrule", *(" & ".join(map(_escaped, row)) + r" \\" for row in published_rows)]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in _differing(papers))]
    return "\n".join([*lines, f"% {legend(table, names)}"])


def _bold(text: str, wanted: bool) -> str:
    """Return a cell, with its mean in bold where that is wanted."""
    mean, space, rest = text.partition(" ")
    return rf"\textbf{{{_escaped(mean)}}}{space}{_escaped(rest)}" if wanted else _escaped(text)


LATEX_SPELLING = {
    **{sign: "\\" + sign for sign in "&%_#{}$"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "≈": r"$\approx$",
    "−": "$-$",
    "λ": r"$\lambda$",
    "–": "--",
}
"""How LaTeX spells what it has another meaning, or no glyph, for."""


def _escaped(text: str) -> str:
    return "".join(LATEX_SPELLING.get(sign, sign) for sign in text)


def _ability(table: Comparison) -> str:
    """Return how general ability changed, method by method, where it was measured."""
    rows = [row for row in all_rows(table) if row.ability]
    changes = (f"{row.method} {', '.join(f'{k} {v:+.1f}' for k, v in row.ability.items())}" for row in rows)
    return "; general ability after the last task minus before the first: " + " | ".join(changes) if rows else ""


def legend(table: Comparison, names: Names = None) -> str:
    """Say how the numbers of a comparison were made, and what its marks mean."""
    mixed = "" if table.protocol else "; DIFFERENT PROTOCOLS stand side by side here, so nothing is set against a best"
    rows = all_rows(table)
    hashes = sorted({one for row in rows for one in row.protocols})
    made = f"protocol {', '.join(hashes)}; fingerprint {', '.join(table.fingerprints)}"
    reference = f"OA − {table.baseline or 'best'}"
    correction = "Holm" if table.baseline else "Bonferroni, all pairs"
    note = COMPARISON.format(reference=reference, correction=correction)
    rows_only = f"; {ROWS_ONLY}" if any(row.test == "rows" for row in rows) else ""
    drawn = f"{table.resamples} resamples, seed {table.seed}"
    if names and "orders" in names:
        drawn += "".join(f"; {head}: {order}" for order, head in order_heads(table).items())
    return f"{LEGEND}; {note}{rows_only}; {drawn}; {made}{mixed}{_ability(table)}"


def _json(table: Comparison, papers: Papers, _: Names = None) -> str:
    return json.dumps(table.as_json() | ({"papers": [one.as_json() for one in papers]} if papers else {}))


FORMS: dict[Format, Callable[..., str]] = {
    "table": _plain,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": _json,
}
"""How each form is made of a comparison, and of what papers print for its orders."""
