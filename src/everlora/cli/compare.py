"""The command that sets finished runs side by side, and the forms in which it prints them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from everlora.cli.catalogue import GROUPS
from everlora.cli.common import Json, Plugin, say

HEADS = {"oa": "OA", "bwt": "BWT", "forgetting": "forgetting", "learning_accuracy": "learning accuracy"}
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


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of them (of a sweep).")],
    format_: Annotated[Format, typer.Option("--format", metavar="FORM", help=FORMAT_HELP)] = "table",
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow runs of different protocols.")] = False,
    mixed_fingerprints: Annotated[
        bool, typer.Option("--mixed-fingerprints", help="Allow scores of other precisions or versions.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="METHOD", help="Set every method against this one, not the best.")
    ] = None,
    with_papers: Annotated[
        bool, typer.Option("--with-papers", help="Add what papers print for these orders.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, metavar="N", help="Resamples of the bootstrap.")] = 2000,
    bootstrap_seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap.")] = 0,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Set runs side by side: mean and 95 % interval of each method over its runs, and what cannot be told apart."""
    from everlora.analysis.answers import find, read
    from everlora.analysis.tables import compare as side_by_side
    from everlora.core.errors import ConfigError, FolderError

    found = []
    for path in find(runs):
        try:
            found.append(read(path))
        except FolderError as error:
            if "is not finished" not in str(error):
                raise
            say(f"left out: {error}", err=True)
    comparison = side_by_side(
        found,
        resamples=resamples,
        seed=bootstrap_seed,
        mixed=mixed,
        mixed_fingerprints=mixed_fingerprints,
        baseline=baseline,
    )
    table: Any = comparison.as_json()
    if with_papers:
        if comparison.protocol is None:
            raise ConfigError("papers' numbers stand beside runs of one protocol; leave --mixed out, or --with-papers")
        table["papers"] = _papers(found, comparison.sections)
    show(table, "json" if as_json else format_)


def _papers(found: list[Any], sections: Any) -> list[dict[str, Any]]:
    """What papers print for the orders that were run.

    Raises:
        ConfigError: no paper at hand has numbers for them.
    """
    from everlora.benchmarks import benchmarks
    from everlora.core.errors import ConfigError
    from everlora.literature.reported import published_rows

    name = str(found[0].protocol.benchmark)
    infos = [info for info in benchmarks() if info.name == name]
    papers = published_rows(found, sections, infos[0].orders, name) if infos else []
    if not papers:
        raise ConfigError(f"no paper at hand has numbers for these orders of {name!r}; leave --with-papers out")
    return [one.as_json() for one in papers]


def show(table: dict[str, Any], form: Format) -> None:
    """Print a comparison on stdout."""
    say(FORMS[form](table))


def cell(interval: dict[str, float] | None) -> str:
    """A mean and its interval."""
    if interval is None:
        return "–"
    mean, low, high = (f"{round(interval[part], 1) + 0.0:.1f}" for part in ("mean", "low", "high"))  # no −0.0
    return f"{mean} [{low}, {high}]".replace("-", "−")


def _difference(row: dict[str, Any], reference: str | None, baseline: str | None) -> str:
    if row["method"] == reference:
        return "baseline" if baseline else "best"
    if row["difference"] is None:
        return "–"
    few = f" over {row['common']}" if row["common"] < row["runs"] else ""
    return ("≈ " if row["alike"] else "") + cell(row["difference"]) + few


def _p(row: dict[str, Any]) -> str:
    if row["p_corrected"] is None:
        return "–"
    shown = "<0.001" if row["p_corrected"] < 0.001 else f"{row['p_corrected']:.3f}"
    return shown + (" (rows)" if row["test"] == "rows" else "")


def _several(table: dict[str, Any]) -> list[str]:
    """What rows differ in of how they were made, and so must say each by itself: protocol, fingerprint."""
    rows = [row for section in table["sections"] for row in section["rows"]]
    return [key for key in ("protocols", "fingerprints") if len({one for row in rows for one in row[key]}) > 1]


def _rows(table: dict[str, Any], section: dict[str, Any]) -> list[list[str]]:
    return [
        [
            " ".join(row["method"].split()),  # it may hold a prompt, with its lines
            str(row["runs"]),
            *(cell(row[metric]) for metric in HEADS),
            _difference(row, section["reference"], table["baseline"]),
            _p(row),
            "–" if row["detectable"] is None else f"{row['detectable']:.1f}",
            *(" ".join(row[key]) for key in _several(table)),
        ]
        for row in section["rows"]
    ]


def _columns(table: dict[str, Any]) -> list[str]:
    made = (key.removesuffix("s") for key in _several(table))
    return ["method", "runs", *HEADS.values(), f"OA − {table['baseline'] or 'best'}", "p", "seen", *made]


PAPER_COLUMNS = ["method", "of", "theirs", "ours", "paper", "model"]


def _paper_rows(table: dict[str, Any]) -> list[list[str]]:
    return [
        [
            one["method"],
            one["column"],
            f"{one['theirs']:.{1 if round(one['theirs'], 1) == one['theirs'] else 2}f}",  # as it is printed
            "–" if one["ours"] is None else f"{one['ours']:.1f}",
            f"{one['paper']}, {one['where']}" + (f" ({one['note']})" if one["note"] else ""),
            one["model"],
        ]
        for one in table.get("papers", ())
    ]


def _differing(table: dict[str, Any]) -> list[str]:
    """Per paper and model one line of what differs between its protocol and ours."""
    differing = {f"{one['paper']} ({one['model']})": one["differs"] for one in table.get("papers", ())}
    return [f"{paper}: {'; '.join(differs)}" for paper, differs in differing.items()]


TITLE = "THEIRS, printed in papers under other protocols; ours beside them"


def _aligned(columns: list[str], body: list[list[str]]) -> list[str]:
    rows = [columns, *body]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    texts = ["  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [texts[0], "─" * (sum(widths) + 2 * len(widths) - 2), *texts[1:], ""]


def _plain(table: dict[str, Any]) -> str:
    lines = []
    for section in table["sections"]:
        lines += [GROUPS[section["group"]], "", *_aligned(_columns(table), _rows(table, section))]
    if published_rows := _paper_rows(table):
        lines += [TITLE, "", *_aligned(PAPER_COLUMNS, published_rows), *_differing(table), ""]
    return "\n".join([*lines, _legend(table)])


def _piped(columns: list[str], body: list[list[str]]) -> list[str]:
    rows = ["| " + " | ".join(word.replace("|", "\\|") for word in row) + " |" for row in (columns, *body)]
    return [rows[0], "|---|" + "--:|" * (len(columns) - 1), *rows[1:], ""]


def _markdown(table: dict[str, Any]) -> str:
    lines = []
    for section in table["sections"]:
        lines += [f"**{GROUPS[section['group']]}**", "", *_piped(_columns(table), _rows(table, section))]
    if published_rows := _paper_rows(table):
        lines += [
            f"**{TITLE}**",
            "",
            *_piped(PAPER_COLUMNS, published_rows),
            *(f"- {line}" for line in _differing(table)),
            "",
        ]
    return "\n".join([*lines, _legend(table)])


def _csv(table: dict[str, Any]) -> str:
    """One line per method; every figure in a column of its own. Papers' numbers are of the group ``theirs``."""
    figures = [(metric, part) for metric in (*HEADS, "difference") for part in ("mean", "low", "high")]
    tests = ("common", "p", "p_corrected", "test", "detectable", "alike")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [*("_".join(figure) for figure in figures), *tests]
    writer.writerow(
        ["group", "method", "seeds", "runs", *heads, "protocol", "fingerprint", "source", "differs", "note"]
    )
    for section in table["sections"]:
        for row in section["rows"]:
            values = [(row[metric] or {}).get(part, "") for metric, part in figures]
            found = ["" if row[test] is None else row[test] for test in tests]
            seeds = " ".join(map(str, row["seeds"]))
            made = (" ".join(row[key]) for key in ("protocols", "fingerprints"))
            writer.writerow([section["group"], row["method"], seeds, row["runs"], *values, *found, *made, "", "", ""])
    for one in table.get("papers", ()):
        blank = [""] * (len(heads) - 1)
        source = f"{one['source']}: {one['where']}, {one['model']}, {one['column']}"
        origin = ["", "", source, "; ".join(one["differs"]), one["note"]]
        writer.writerow(["theirs", one["method"], "", "", one["theirs"], *blank, *origin])
    return text.getvalue().rstrip("\n")


def _latex(table: dict[str, Any]) -> str:
    columns = _columns(table)
    lines = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\hline"]
    lines += [" & ".join(map(_escaped, columns)) + r" \\"]
    for section in table["sections"]:
        lines += [r"\hline", rf"\multicolumn{{{len(columns)}}}{{l}}{{{_escaped(GROUPS[section['group']])}}} \\"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in _rows(table, section)]
    lines += [r"\hline", r"\end{tabular}"]
    if published_rows := _paper_rows(table):
        lines += [rf"% {TITLE}", r"\begin{tabular}{llrrll}", r"\hline", " & ".join(PAPER_COLUMNS) + r" \\", r"\hline"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in published_rows]
        lines += [r"\hline", r"\end{tabular}", *(f"% {line}" for line in _differing(table))]
    return "\n".join([*lines, f"% {_legend(table)}"])


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


def _ability(table: dict[str, Any]) -> str:
    """How general ability changed, method by method, where it was measured."""
    rows = [row for section in table["sections"] for row in section["rows"] if row["ability"]]
    changes = (f"{row['method']} {', '.join(f'{k} {v:+.1f}' for k, v in row['ability'].items())}" for row in rows)
    return "; general ability after the last task minus before the first: " + " | ".join(changes) if rows else ""


def _legend(table: dict[str, Any]) -> str:
    mixed = (
        "" if table["protocol"] else "; DIFFERENT PROTOCOLS stand side by side here, so nothing is set against a best"
    )
    hashes = sorted({one for section in table["sections"] for row in section["rows"] for one in row["protocols"]})
    made = f"protocol {', '.join(hashes)}; fingerprint {', '.join(table['fingerprints'])}"
    reference = f"OA − {table['baseline'] or 'best'}"
    correction = "Holm" if table["baseline"] else "Bonferroni, all pairs"
    note = COMPARISON.format(reference=reference, correction=correction)
    rows = [row for section in table["sections"] for row in section["rows"]]
    rows_only = f"; {ROWS_ONLY}" if any(row["test"] == "rows" for row in rows) else ""
    drawn = f"{table['resamples']} resamples, seed {table['seed']}"
    return f"{LEGEND}; {note}{rows_only}; {drawn}; {made}{mixed}{_ability(table)}"


FORMS: dict[Format, Callable[[dict[str, Any]], str]] = {
    "table": _plain,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": json.dumps,
}
"""How each form is made of a comparison."""
