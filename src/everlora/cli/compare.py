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
from everlora.cli.common import Json

HEADS = {"oa": "OA", "bwt": "BWT", "forgetting": "forgetting", "learning_accuracy": "learning accuracy"}
Format = Literal["table", "markdown", "csv", "latex", "json"]
LEGEND = (
    "mean over seeds and 95 % interval (bootstrap over seeds, then over test rows); ≈: cannot be told from the best "
    "of its section, the interval of the paired difference in OA holds 0"
)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of them (of a sweep).")],
    format_: Annotated[Format, typer.Option("--format", help="How the table is printed.")] = "table",
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow runs of different protocols.")] = False,
    mixed_fingerprints: Annotated[
        bool, typer.Option("--mixed-fingerprints", help="Allow scores of other precisions or versions.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 2000,
    bootstrap_seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Set runs side by side: mean and 95 % interval of each method over its seeds, and what cannot be told apart."""
    from everlora.analysis.answers import compare as side_by_side
    from everlora.analysis.answers import find, read
    from everlora.core.errors import FolderError

    found = []
    for path in find(runs):
        try:
            found.append(read(path))
        except FolderError as error:
            if "is not finished" not in str(error):
                raise
            typer.echo(f"left out: {error}", err=True)
    table = side_by_side(
        found, resamples=resamples, seed=bootstrap_seed, mixed=mixed, mixed_fingerprints=mixed_fingerprints
    )
    show(table, "json" if as_json else format_)


def show(table: dict[str, Any], form: Format) -> None:
    """Print a comparison on stdout."""
    forms: dict[str, Callable[[dict[str, Any]], str]] = {
        "table": _plain,
        "markdown": _markdown,
        "csv": _csv,
        "latex": _latex,
        "json": json.dumps,
    }
    typer.echo(forms[form](table))


def cell(interval: dict[str, float] | None) -> str:
    """A mean and its interval."""
    if interval is None:
        return "–"
    return f"{interval['mean']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]".replace("-", "−")


def _to_best(row: dict[str, Any], best: str | None) -> str:
    if row["method"] == best:
        return "best"
    return "–" if row["to_best"] is None else ("≈ " if row["like_best"] else "") + cell(row["to_best"])


def _rows(section: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["method"],
            str(len(row["seeds"])),
            *(cell(row[metric]) for metric in HEADS),
            _to_best(row, section["best"]),
        ]
        for row in section["rows"]
    ]


COLUMNS = ["method", "seeds", *HEADS.values(), "OA − best"]


def _plain(table: dict[str, Any]) -> str:
    lines = []
    for section in table["sections"]:
        rows = [COLUMNS, *_rows(section)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
        lines += [GROUPS[section["group"]], ""]
        texts = ["  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [texts[0], "─" * (sum(widths) + 2 * len(widths) - 2), *texts[1:], ""]
    return "\n".join([*lines, _legend(table)])


def _markdown(table: dict[str, Any]) -> str:
    lines = []
    for section in table["sections"]:
        lines += [f"**{GROUPS[section['group']]}**", "", "| " + " | ".join(COLUMNS) + " |"]
        lines += ["|---|" + "--:|" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join(word.replace("|", "\\|") for word in row) + " |" for row in _rows(section)]
        lines.append("")
    return "\n".join([*lines, _legend(table)])


def _csv(table: dict[str, Any]) -> str:
    """One line per method; every figure in a column of its own."""
    figures = [(metric, part) for metric in (*HEADS, "to_best") for part in ("mean", "low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "method", "seeds", *("_".join(figure) for figure in figures), "like_best", "protocol"])
    for section in table["sections"]:
        for row in section["rows"]:
            values = [(row[metric] or {}).get(part, "") for metric, part in figures]
            seeds = " ".join(map(str, row["seeds"]))
            like = "" if row["like_best"] is None else row["like_best"]
            writer.writerow([section["group"], row["method"], seeds, *values, like, " ".join(row["protocols"])])
    return text.getvalue().rstrip("\n")


def _latex(table: dict[str, Any]) -> str:
    lines = [r"\begin{tabular}{l" + "r" * (len(COLUMNS) - 1) + "}", r"\hline"]
    lines += [" & ".join(map(_escaped, COLUMNS)) + r" \\"]
    for section in table["sections"]:
        lines += [r"\hline", rf"\multicolumn{{{len(COLUMNS)}}}{{l}}{{{_escaped(GROUPS[section['group']])}}} \\"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in _rows(section)]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", f"% {_legend(table)}"])


def _escaped(text: str) -> str:
    for sign in "&%_#{}":
        text = text.replace(sign, "\\" + sign)
    return text.replace("≈", r"$\approx$").replace("−", "$-$").replace("λ", r"$\lambda$").replace("–", "--")


def _ability(table: dict[str, Any]) -> str:
    """How general ability changed, method by method, where it was measured."""
    rows = [row for section in table["sections"] for row in section["rows"] if row["ability"]]
    told = (f"{row['method']} {', '.join(f'{k} {v:+.1f}' for k, v in row['ability'].items())}" for row in rows)
    return "; general ability after the last task minus before the first: " + " | ".join(told) if rows else ""


def _legend(table: dict[str, Any]) -> str:
    mixed = (
        "" if table["protocol"] else "; DIFFERENT PROTOCOLS stand side by side here, so nothing is set against a best"
    )
    hashes = sorted({one for section in table["sections"] for row in section["rows"] for one in row["protocols"]})
    made = f"protocol {', '.join(hashes)}; fingerprint {', '.join(table['fingerprints'])}"
    return f"{LEGEND}; {table['resamples']} resamples, seed {table['seed']}; {made}{mixed}{_ability(table)}"
