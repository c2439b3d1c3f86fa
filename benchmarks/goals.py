"""Renders the table of speed goals from files of measurements: which are reached, and which were not measured.

    python benchmarks/goals.py                      # from the files in benchmarks/results
    python benchmarks/goals.py --now runs/bench     # files of this folder first; it also gets the table as goals.json
    python benchmarks/goals.py --page               # puts the table of benchmarks/results into docs/results.md

No number stands here but the goals. What a file does not hold is "not measured here".
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

STORED = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- goals -->\n).*?(<!-- end of goals -->)", re.DOTALL)
HEAD = "| what | goal | measured | range | reached | from |\n|---|--:|--:|---|---|---|\n"

Row = Mapping[str, Any]
"""One line of a file: a measurement."""
Values = Callable[[Sequence[Row]], list[float]]
"""Takes from the lines of a file what a goal is about: a number for each round, task or seed."""


@dataclass(frozen=True)
class Goal:
    """Is one line of the table.

    Attributes:
        what: is measured.
        most: the median of the values may be at most this; at least, where ``at_least`` says so.
        file: the name of the file of measurements, which is that of the script that makes them.
        values: how they are taken from it.
        unit: behind the numbers; empty for ratios.
    """

    what: str
    most: float
    file: str
    values: Values
    unit: str = ""
    at_least: bool = False

    def reached(self, measured: float) -> bool:
        """Tell whether the goal is reached."""
        return measured >= self.most if self.at_least else measured <= self.most


def some(rows: Sequence[Row], **of: object) -> list[Row]:
    """Return the rows that say this; measurements of code as it was before do not count."""
    return [row for row in rows if row.get("code") != "before" and all(row.get(k) == v for k, v in of.items())]


def parts(upper: str, lower: str, **of: object) -> Values:
    """Return the ratio of two numbers of each row."""
    return lambda rows: [row[upper] / row[lower] for row in some(rows, **of)]


def column(name: str, **of: object) -> Values:
    """Return one number of each row."""
    return lambda rows: [row[name] for row in some(rows, **of)]


def against_stock(name: str) -> Values:
    """Return the ratio of the two ways of a whole sequence, round by round."""

    def values(rows: Sequence[Row]) -> list[float]:
        ours = {row["round"]: row[name] for row in some(rows, way="everlora")}
        return [ours[row["round"]] / row[name] for row in some(rows, way="stock") if row["round"] in ours]

    return values


def curves(rows: Sequence[Row]) -> list[float]:
    """Return how far our losses are from stock's of the same seed, as a share of the least distance of two seeds."""
    found = some(rows, what="curves")
    between = [_distance(a["stock"], b["stock"]) for a, b in combinations(found, 2)]
    return [_distance(row["stock"], row["everlora"]) / min(between) for row in found] if between else []


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.mean(abs(a - b) for a, b in zip(one, other, strict=True))


def undisturbed(rows: Sequence[Row]) -> list[float]:
    """Return what two workers take by the clock, in rounds in which others took at most a tenth of two cores."""

    def quiet(row: Row) -> bool:
        return all(row[f"{way} others"] <= 0.2 * row[way] for way in ("alone", "workers"))

    return [row["workers"] / row["alone"] for row in rows if quiet(row)]


def grown(what: str, name: str, early: int, late: int, **of: object) -> Values:
    """Return by what a cost is larger after many tasks than after few."""

    def values(rows: Sequence[Row]) -> list[float]:
        few, many = (some(rows, what=what, tasks=tasks, **of) for tasks in (early, late))
        return [b[name] / max(a[name], 1e-9) for a, b in zip(few, many, strict=False)]

    return values


def _penalties() -> list[Goal]:
    names = {"ella": "ELLA", "ps-lora": "PS-LoRA", "o-lora": "O-LoRA", "lb-cl": "LB-CL", "ewc": "EWC"}
    return [
        Goal(f"{name}: step over plain LoRA's, T = {tasks}", most, "step", column("ratio", method=key, tasks=tasks))
        for tasks, most in ((15, 1.01), (50, 1.015))
        for key, name in names.items()
    ] + [
        *(
            Goal(
                f"K-FAC: step over plain LoRA's, T = {tasks}",
                1.02,
                "step",
                column("ratio", method="kfac", tasks=tasks),
            )
            for tasks in (15, 50)
        ),
        Goal("K-FAC: evidence of 32 rows, over learning them once", 1.0, "step", column("ratio", what="evidence")),
    ]


def _begins() -> list[Goal]:
    names = {"ella": "ELLA", "ps-lora": "PS-LoRA", "o-lora": "O-LoRA", "lb-cl": "LB-CL", "inflora": "InfLoRA"}
    return [
        Goal(f"{name}: begin of a task, T = 50", 0.5, "growth",
             column("seconds", what="begin", method=key, tasks=50), " s")
        for key, name in names.items()
    ]  # fmt: skip


GOALS = (
    Goal("whole sequence", 0.33, "sequence", against_stock("seconds")),
    Goal("the same, peak memory", 0.50, "sequence", against_stock("peak_gib")),
    Goal("training step 8 x 128", 0.42, "speed", parts("everlora", "stock", what="step")),
    Goal("losses: from stock's, over that of seeds", 0.1, "speed", curves),
    Goal("mixed lengths, rows of 3 tasks", 0.45, "speed", parts("everlora", "stock", what="training")),
    Goal("answering, 4 labels, written", 0.50, "speed", parts("everlora", "stock", what="generate", task="agnews")),
    Goal("answering, 14 labels, written", 0.55, "speed", parts("everlora", "stock", what="generate", task="dbpedia")),
    Goal("answering, 4 labels, scored", 0.33, "speed", parts("everlora", "stock", what="labels", task="agnews")),
    Goal("answering, 14 labels, scored", 0.40, "speed", parts("everlora", "stock", what="labels", task="dbpedia")),
    Goal("extra memory of answering, 32 rows", 64, "speed", column("everlora", what="memory"), " MiB"),
    Goal("upper two of six layers: learning", 0.33, "speed",
         parts("everlora", "stock", what="frozen", task="learned")),
    Goal("the same, in a second run of a sweep", 0.33, "speed",
         parts("everlora", "stock", what="frozen", task="in a second run")),
    Goal("the same, answering", 0.33, "speed", parts("everlora", "stock", what="frozen", task="answered")),
    *_penalties(),
    *_begins(),
    Goal("LB-CL: begin of a task, T = 50 over 15", 1.1, "growth", grown("begin", "seconds", 15, 50, method="lb-cl")),
    Goal("PS-LoRA: the same", 1.1, "growth", grown("begin", "seconds", 15, 50, method="ps-lora")),
    Goal("files hashed by a task, T = 50 over 5", 1.0, "commands", grown("files", "hashed", 5, 50)),
    Goal("files opened by a task, T = 50 over 5", 1.0, "commands", grown("files", "opened", 5, 50)),
    Goal("files opened by `status`, T = 50 over 5", 1.0, "commands", grown("files", "status", 5, 50)),
    Goal("files opened by a process that goes on, T = 50 over 5", 1.0, "commands", grown("files", "resumed", 5, 50)),
    Goal("`everlora run` of a demo task, but training and answers", 5, "commands", column("rest", what="run"), " s"),
    Goal("`make demo`, compute", 240, "commands", column("seconds", what="demo"), " s"),
    Goal("sweep of 12 small runs", 0.55, "sweeping", undisturbed),
    Goal("GPU: mixed lengths, stock over ours", 3, "gpu",
         lambda rows: [1 / row["ratio"] for row in some(rows, part="training", way="everlora")], at_least=True),
    Goal("GPU: penalty's share of a step, T = 50", 0.01, "gpu", column("share", part="penalty", way="auto")),
    Goal("GPU: kernel over the bytes that must move", 1.5, "gpu",
         column("times_bytes", part="kernel", way="tiles ieee")),
)  # fmt: skip


Data = Mapping[str, Mapping[str, Sequence[Row]]]
"""The lines of files by their names, of measurements that were made "now" and of those that are "stored"."""


def load(now: Path | None, stored: Path = STORED) -> Data:
    """Read the files of measurements."""
    names, folders = {goal.file for goal in GOALS}, {"now": now, "stored": stored}
    return {
        source: {
            path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for path in (folder.glob("*.jsonl") if folder else ())
            if path.stem in names
        }
        for source, folder in folders.items()
    }


def results(data: Data, goals: Sequence[Goal] = GOALS) -> list[dict[str, Any]]:
    """Hold the measurements against the goals, those that were made now first."""
    found = []
    for goal in goals:
        row = {"what": goal.what, "goal": goal.most, "at_least": goal.at_least, "unit": goal.unit, "values": []}
        for source, files in data.items():
            if values := goal.values(files.get(goal.file, ())):
                middle = statistics.median(values)
                row |= {"values": values, "measured": middle, "low": min(values), "high": max(values)}
                row |= {"reached": goal.reached(middle), "script": f"{goal.file}.py", "source": source}
                break
        found.append(row)
    return found


def table(found: Sequence[Mapping[str, Any]], *, sources: bool = True) -> str:
    """Return the lines of the table; ``sources`` says of each whether it was measured now or is stored."""
    lines = []
    for row in found:
        goal = f"{'≥' if row['at_least'] else '≤'} {row['goal']:g}{row['unit']}"
        if not row["values"]:
            lines.append(f"| {row['what']} | {goal} | not measured here | | | |")
            continue
        shown = [_number(row[key], row["goal"]) for key in ("measured", "low", "high")]
        count, origin = len(row["values"]), f", {row['source']}" if sources else ""
        spread = f"{shown[1]} to {shown[2]} ({count})" if count > 1 else "one value"
        reached = "yes" if row["reached"] else "**no**"
        lines.append(
            f"| {row['what']} | {goal} | {shown[0]}{row['unit']} | {spread} | {reached} | {row['script']}{origin} |"
        )
    return HEAD + "".join(line + "\n" for line in lines)


def _number(value: float, goal: float) -> str:
    """Write a number with as many digits as tell it from its goal."""
    if 0 < abs(value) < goal / 100:
        return f"{value:.0e}"
    return f"{value:.0f}" if goal > 50 else f"{value:.3f}" if abs(goal - 1) < 0.02 or goal < 0.1 else f"{value:.2f}"


def rendered(page: str, stored: Path = STORED) -> str:
    """Return a page with the table of the stored measurements in its place."""
    made = table(results(load(None, stored)), sources=False)
    return BLOCK.sub(lambda match: f"{match[1]}{made}{match[2]}", page)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--now", type=Path, help="a folder of measurements that were made just now")
    parser.add_argument("--page", action="store_true", help="write the table into docs/results.md")
    wish = parser.parse_args(arguments)
    if wish.page:
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    found = results(load(wish.now))
    if wish.now:
        (wish.now / "goals.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found), end="")


if __name__ == "__main__":
    main()
