"""Keeps the runs of a study as data, and renders the tables of the pages from them.

    python benchmarks/study.py collect runs/stage-names --to benchmarks/results/stage-names.jsonl
    python benchmarks/study.py render

``collect`` writes one line for each finished run: method, settings that were searched, order, seed, the score of each
task right after it was learned and at the end, and the measures made of them; with ``--add`` beside those that the
file has. ``render`` replaces what stands in a page between ``<!-- study NAME minus BASELINE … -->`` and ``<!-- end of
study -->`` by the table of ``benchmarks/results/NAME.jsonl`` (of several with ``NAME+NAME``); with ``of SYSTEM …``
before ``minus`` of these systems alone, and with ``orders 2,3`` or ``seed N`` last of these orders or this seed. A
baseline is a system, or a method with its options where a system has several (METHOD@RATE where it was run at several
rates). Between ``<!-- tuning TRIALS test NAME
-->`` and ``<!-- end of study -->`` stand what a search on dev rows found, and the same system on the test rows of the
same order. Between ``<!-- orders NAME of SYSTEM … -->`` and the same end stands each order's mean OA and number of
runs. Between ``<!-- rises NAME -->`` and the same end stand predicted and real rises of losses
(`benchmarks/forecast.py`). Between ``<!-- matrices demo of METHOD … -->`` and the same end stand matrices of the
demonstration.

Every run of a method is paired with the baseline's run of the same order and seed. After ± stands half of the 95 %
interval of the mean difference (t over the runs); * marks differences whose p is below 0.05 after Holm's correction
over all methods of the study, shown or not.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy import stats

import everlora.methods  # noqa: F401  # registers them
from everlora.analysis.answers import find, read
from everlora.analysis.significance import holm
from everlora.archive.atomic import write_text
from everlora.archive.folder import read_matrix
from everlora.archive.results import MatrixRecord
from everlora.core.expressions import split_expression

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "src" / "everlora" / "learner" / "demo_seeds.json"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(<!-- (?P<kind>study|orders|tuning|matrices|rises) (?P<name>\S+)"
    r"(?: of (?P<of>[^>]*?))?(?: minus (?P<minus>[^>]*?))?(?: orders (?P<orders>\S+))?(?: seed (?P<seed>\d+))?"
    r"(?: test (?P<test>\S+))? -->\n).*?(?P<end><!-- end of study -->)",
    re.DOTALL,
)
CONFIDENCE, LEVEL = 0.95, 0.05

Unit = tuple[str, int]
"""An order of tasks and a seed: what one run of each method is paired by."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Holds one finished run.

    Attributes:
        system: the names of its methods, without options.
        method: with the options that it ran with.
        rate: the learning rate; None is that of the method's form.
        split: the rows that it was scored on.
        tasks: in the order in which they were learned.
        learned, final: each task's score right after it was learned, and at the end; percent. A joint method has no
            score of the first kind.
        oa, bwt, learning_accuracy: what is made of them; None where it is not defined.
        identity: of the run, as its folder has it.
        versions: of what computed it.
    """

    system: str
    method: str
    rate: float | None
    order: str
    seed: int
    split: str
    tasks: tuple[str, ...]
    learned: tuple[float | None, ...]
    final: tuple[float, ...]
    oa: float
    bwt: float | None
    learning_accuracy: float | None
    identity: str
    versions: Mapping[str, str | None]


def point(path: Path) -> Point:
    """Read one finished run.

    Raises:
        FolderError: the folder holds no finished run.
    """
    run, results = read(path), read_matrix(path)
    found = run.settings.train.get("learning_rate")
    joint = run.composition.regime != "sequence"
    final = [cell for cell in results.matrix[-1] if cell is not None]
    return Point(
        system="+".join(name for name, _ in split_expression(run.settings.method)),
        method=run.settings.method,
        rate=float(found) if isinstance(found, int | float) else None,
        order=str(getattr(run.settings, "order", None)),
        seed=run.settings.seed,
        split=run.settings.evaluation.split,
        tasks=tuple(results.tasks),
        learned=tuple(None if joint else _rounded(results.matrix[k][k]) for k in range(len(results.tasks))),
        final=tuple(round(score, 4) for score in final),
        oa=round(sum(final) / len(final), 4),
        bwt=_measure(results, "bwt"),
        learning_accuracy=None if joint else _measure(results, "learning_accuracy"),
        identity=results.id,
        versions={
            key: value for one in results.fingerprints.of.values() if one for key, value in one.versions.items()
        },
    )


def _measure(results: MatrixRecord, name: str) -> float | None:
    return _rounded(results.metrics.get(name))


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(float(score), 4)


def finished(path: Path) -> bool:
    """Return whether a run has the last row of its matrix."""
    if not (path / "matrix.json").is_file():
        return False
    results = read_matrix(path)
    return len(results.matrix) == len(results.tasks) and None not in results.matrix[-1]


def collect(folders: Sequence[Path], to: Path, *, add: bool = False) -> None:
    """Write all finished runs of folders, in the order of method, order and seed; ``add`` keeps what the file has."""
    found = [Point(**json.loads(line)) for line in to.read_text("utf-8").splitlines()] if add and to.exists() else []
    found += [point(path) for path in find(folders) if finished(path)]
    points = list({one.identity: one for one in found}.values())  # a run that is there already, once
    points.sort(key=lambda one: (one.method, one.rate or 0, one.order, one.seed))
    write_text(to, "".join(json.dumps(asdict(one)) + "\n" for one in points))
    print(f"{len(points)} runs in {to}")


def load(name: str) -> list[Point]:
    """Return the runs of a study, or of several: NAME+NAME."""
    lines = [line for one in name.split("+") for line in (RESULTS / f"{one}.jsonl").read_text("utf-8").splitlines()]
    return [Point(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class Gap:
    """Holds a mean paired difference of two methods in points of OA, half of its 95 % interval, and its p."""

    mean: float
    half: float
    p: float
    runs: int


def gap(one: Mapping[Unit, float], other: Mapping[Unit, float]) -> Gap | None:
    """Return the paired difference over the runs that both have; None of fewer than three.

    Where one side does not know the order (one adapter per task), its runs of one seed are one, and pairs are seeds.

    >>> found = gap({("1", s): 61.0 + s for s in range(3)}, {("1", s): 60.0 + 2 * s for s in range(3)})
    >>> round(found.mean, 3), round(found.half, 2), found.runs
    (0.0, 2.48, 3)
    """
    found = {unit: one[unit] - other[unit] for unit in sorted(one.keys() & other.keys())}
    differences = list(found.values())
    if knows_no_order(one) or knows_no_order(other):
        seeds = sorted({seed for _, seed in found})
        differences = [mean(gain for unit, gain in found.items() if unit[1] == seed) for seed in seeds]
    count = len(differences)
    if count < 3:
        return None
    error = stdev(differences) / sqrt(count)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean(differences)) / error, count - 1)) if error else float(mean(differences) == 0)
    return Gap(mean(differences), half, p, count)


def knows_no_order(scores: Mapping[Unit, float]) -> bool:
    """Return whether several orders were run, and each seed's runs end alike."""
    by_seed: dict[int, set[float]] = {}
    for (_, seed), score in scores.items():
        by_seed.setdefault(seed, set()).add(score)
    return len(scores) > len(by_seed) and all(len(found) == 1 for found in by_seed.values())


def by_method(points: Sequence[Point]) -> dict[str, dict[Unit, Point]]:
    """Return the runs by method, each of its rates apart, and by unit; the method of the highest mean OA first."""
    rates: dict[str, set[float | None]] = {}
    for one in points:
        rates.setdefault(one.method, set()).add(one.rate)
    found: dict[str, dict[Unit, Point]] = {}
    for one in points:
        name = one.method if len(rates[one.method]) == 1 else f"{one.method}@{one.rate}"
        found.setdefault(name, {})[one.order, one.seed] = one
    return dict(sorted(found.items(), key=lambda item: -mean(p.oa for p in item[1].values())))


def gaps(methods: Mapping[str, Mapping[Unit, Point]], baseline: str) -> dict[str, tuple[Gap, bool]]:
    """Return each method's difference from a baseline, and whether it stands after Holm's correction."""
    scores = {name: {unit: one.oa for unit, one in runs.items()} for name, runs in methods.items()}
    system = {name: next(iter(runs.values())).system for name, runs in methods.items()}
    base = baseline if baseline in methods else next((name for name in methods if system[name] == baseline), None)
    if base is None:
        raise SystemExit(f"no runs of {baseline!r}; there are: {', '.join(system.values())}")
    found = {name: one for name in methods if name != base and (one := gap(scores[name], scores[base]))}
    p = holm({name: one.p for name, one in found.items()})
    return {name: (one, p[name] < LEVEL) for name, one in found.items()}


def table(points: Sequence[Point], minus: Sequence[str], of: Sequence[str] = ()) -> str:
    """Return the table of a study in Markdown.

    Args:
        points: its runs.
        minus: systems that every method is set against, a column each.
        of: systems that are shown, all if none is named; p is corrected over all of them, shown or not.
    """
    methods = by_method(points)
    against = {baseline: gaps(methods, baseline) for baseline in minus}
    header = ["method", "rate", "runs", "OA", "BWT", "learning accuracy", *(f"minus {one}" for one in minus)]
    rows = [header, ["---", *["--:"] * (len(header) - 1)]]
    for name, runs in methods.items():
        ones = list(runs.values())
        if of and ones[0].system not in of:
            continue
        cells = [f"`{ones[0].method}`", "form's" if ones[0].rate is None else f"{ones[0].rate:g}", str(len(ones))]
        cells += [f"{mean(one.oa for one in ones):.1f}", _mean([one.bwt for one in ones], "+")]
        cells += [_mean([one.learning_accuracy for one in ones])]
        cells += [_difference(against[baseline].get(name)) for baseline in minus]
        rows.append(cells)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def by_order(points: Sequence[Point], of: Sequence[str] = ()) -> str:
    """Return a table of the mean OA over the seeds of each order of tasks, of all systems if none is named."""
    orders = sorted({one.order for one in points})
    rows = [["method", *(f"order {order}" for order in orders)], ["---", *["--:"] * len(orders)]]
    for name, runs in by_method(points).items():
        if of and next(iter(runs.values())).system not in of:
            continue
        scores = [[one.oa for one in runs.values() if one.order == order] for order in orders]
        rows.append([f"`{name}`", *(f"{mean(each):.1f} ({len(each)})" if each else "" for each in scores)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _mean(values: Sequence[float | None], sign: str = "") -> str:
    there = [value for value in values if value is not None]
    return f"{mean(there):{sign}.1f}".replace("-", "−") if there else ""


def _difference(found: tuple[Gap, bool] | None) -> str:
    if found is None:
        return "–"
    one, stands = found
    return f"{one.mean:+.1f} ± {one.half:.1f}{'*' if stands else ''}".replace("-", "−")


def tuning(trials: Sequence[Point], final: Sequence[Point]) -> str:
    """Return what a search found in Markdown: the best trial of each system, and how far dev and test rows agree.

    Args:
        trials: one run of each, of one order.
        final: runs of the table that was made with what was found.
    """
    order = trials[0].order
    best: dict[str, Point] = {}
    for one in trials:
        if one.system not in best or one.oa > best[one.system].oa:
            best[one.system] = one
    found = {
        system: mean(scores)
        for system in best
        if (scores := [one.oa for one in final if one.system == system and one.order == order])
    }
    counts = {system: sum(one.system == system for one in trials) for system in best}
    rows = [["system", "trials", "best", "rate", "dev OA", "test OA"], ["---", "--:", "---", "--:", "--:", "--:"]]
    for system, one in sorted(best.items(), key=lambda item: -item[1].oa):
        cells = [system, str(counts[system]), f"`{one.method}`", f"{one.rate:g}", f"{one.oa:.1f}"]
        rows.append([*cells, f"{found[system]:.1f}" if system in found else ""])
    agree = float(stats.spearmanr([best[system].oa for system in found], list(found.values())).statistic)
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{lines}\nRank correlation (Spearman) of dev and test over the {len(found)} systems: {agree:.2f}.\n"


def matrices(methods: Sequence[str]) -> str:
    """Return the demonstration's matrices of its first seed: accuracy on each task (columns) after each (rows)."""
    stored = json.loads(DEMO.read_text(encoding="utf-8"))
    tasks: list[str] = stored["tasks"]
    first, widths = max(map(len, tasks)), [max(5, len(task)) for task in tasks]
    header = "".join(f" {task:>{width}}" for task, width in zip(tasks, widths, strict=True))
    lines = [("", [f" {name}" for name in methods]), ("after", [header for _ in methods])]
    for k, task in enumerate(tasks):
        rows = [zip(stored["matrices"][method][k], widths, strict=True) for method in methods]
        cells = [[f" {'' if score is None else f'{score:.0f}':>{width}}" for score, width in row] for row in rows]
        lines.append((task, ["".join(row) for row in cells]))
    sheet = [f"{name:<{first}}  " + "   ".join(f"{one:<{len(header)}}" for one in row) for name, row in lines]
    return "```text\n" + "\n".join(line.rstrip() for line in sheet) + "\n```\n"


def rises(path: Path) -> str:
    """Return a table of what ``benchmarks/forecast.py`` wrote: predicted and real rises of earlier tasks' losses."""
    by: dict[str, list[tuple[float, float]]] = {"all": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pair = (row["since"]["predicted"], row["since"]["real"])
        by["all"].append(pair)
        by.setdefault(row["method"], []).append(pair)
    lines = ["| method | pairs of tasks | predicted, mean | real, mean | real / predicted | Spearman |"]
    lines.append("| --- | --: | --: | --: | --: | --: |")
    for method, pairs in by.items():
        predicted, real = (mean(values) for values in zip(*pairs, strict=True))
        rank = f"{stats.spearmanr(*zip(*pairs, strict=True)).statistic:.2f}".replace("-", "−")
        lines.append(f"| `{method}` | {len(pairs)} | {predicted:.4f} | {real:.3f} | {real / predicted:.1f} | {rank} |")
    return "\n".join(lines) + "\n"


def rendered(page: str) -> str:
    """Return a page with the tables of its studies made anew."""

    def block(match: re.Match[str]) -> str:
        if match["kind"] == "matrices":
            return f"{match[1]}{matrices((match['of'] or '').split())}{match['end']}"
        if match["kind"] == "rises":
            return f"{match[1]}{rises(RESULTS / (match['name'] + '.jsonl'))}{match['end']}"
        points = load(match["name"])
        if match["kind"] == "tuning":
            return f"{match[1]}{tuning(points, load(match['test']))}{match['end']}"
        of, minus = ((match[key] or "").replace(",", " ").split() for key in ("of", "minus"))
        if match["kind"] == "orders":
            return f"{match[1]}{by_order(points, of)}{match['end']}"
        points = [one for one in points if match["orders"] is None or one.order in match["orders"].split(",")]
        points = [one for one in points if match["seed"] is None or one.seed == int(match["seed"])]
        return f"{match[1]}{table(points, minus, of)}{match['end']}"

    return BLOCK.sub(block, page)


def main() -> None:
    """Collect runs, or render pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("folders", type=Path, nargs="+")
    collecting.add_argument("--to", type=Path, required=True)
    collecting.add_argument("--add", action="store_true", help="to the runs that the file has")
    commands.add_parser("render")
    given = parser.parse_args()
    if given.command == "collect":
        collect(given.folders, given.to, add=given.add)
        return
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := rendered(before)) != before:
            write_text(page, after)
            print(f"{page.relative_to(ROOT)} rendered")


if __name__ == "__main__":
    main()
