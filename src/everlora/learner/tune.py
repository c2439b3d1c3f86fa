"""Finds rate and strength of systems on dev rows, every system with the same number of trials.

A trial is one run with a rate and a value of each option that the system's methods declare a `Search` for. A system
without such options has as many rates as the others have rates and values together, from the same range.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from everlora.archive.atomic import write_text
from everlora.archive.folder import read_matrix
from everlora.archive.identity import Composition, identity
from everlora.core.defaults import searches
from everlora.core.errors import ConfigError
from everlora.core.expressions import build, options_of, parse, split_expression
from everlora.core.registry import entry
from everlora.learner.sweep import Job, jobs, safe
from everlora.learner.tuned import System, Tuned, known_system, rows_of, system_of
from everlora.settings.spec import RawSettings

LOWEST, HIGHEST = 0.63, 4.0
"""The range of rates that are tried, as multiples of the rate of the system's form: two of it are that rate and 2.5
times as much. 0.4 of it was never best where it was tried (docs/results.md)."""
TABLE, TRIALS = "tuned.yaml", "trials.json"
ANY = Composition(name="", regime="sequence", consolidator="sum")
"""Stands for the method in the hash of what is the same whatever the method."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Holds one point of a search, and how well the system did there.

    Attributes:
        system: as it was named.
        method: its expression with the options of this trial.
        rate: the learning rate.
        scores: OA of the runs of this trial, one per order and seed; empty before they were made.
        under: hash of what all trials of a search share, see `shared_by`; empty where an older search left none.
    """

    system: str
    method: str
    rate: float
    scores: tuple[float, ...] = ()
    under: str = ""

    @property
    def mean(self) -> float:
        """Return the mean OA; lower than any score where nothing was measured."""
        return sum(self.scores) / len(self.scores) if self.scores else -math.inf


def trials_of(system: str, budget: int, rate: float | None = None) -> list[Trial]:
    """Return the trials of a system: at most ``budget`` of them, and as many as that wherever its options allow it.

    >>> import everlora.methods
    >>> [(t.method, round(t.rate, 5)) for t in trials_of("inclora", 3)]
    [('inclora', 0.00257), ('inclora', 0.00476), ('inclora', 0.00882)]
    >>> [(t.method, t.rate) for t in trials_of("decay", 3, rate=5e-3)]
    [('decay(rho=0.03)', 0.005), ('decay(rho=0.1)', 0.005), ('decay(rho=0.3)', 0.005)]
    >>> {system: len(trials_of(system, 8)) for system in ("inclora", "ella", "kfac", "lb-cl")}
    {'inclora': 8, 'ella': 8, 'kfac': 8, 'lb-cl': 8}

    Args:
        system: an expression; options that it sets are not searched.
        budget: how many trials; where it is no multiple of the number of options, the last rate is tried with fewer
            of them, and where it is lower, so is the only one: from all over the list.
        rate: one that is not searched either; None tries rates about that of the system's form.

    Raises:
        ConfigError: an unknown method, or no trial at all.
    """
    if budget < 1:
        raise ConfigError(f"a search needs at least one trial for each system, not {budget}")
    form = parse(system).adapter.learning_rate
    expressions = _spread(_expressions(system), budget)
    # Every system gets the same number of trials: one with more options to try has fewer rates.
    count = math.ceil(budget / len(expressions))
    # The middles of as many equal parts of the range, on a logarithmic scale.
    rates = [float(f"{form * LOWEST * (HIGHEST / LOWEST) ** ((k + 0.5) / count):.3g}") for k in range(count)]
    tried = rates if rate is None else [rate]
    last = budget - (len(tried) - 1) * len(expressions)
    points = [(each, one) for each in tried[:-1] for one in expressions]
    points += [(tried[-1], one) for one in _spread(expressions, last)]
    return [Trial(system=system, method=one, rate=each) for each, one in points]


def _spread(expressions: Sequence[str], count: int) -> Sequence[str]:
    """Return at most ``count`` of a list, from all over it, the middle first.

    The list may be of combinations, so that equal strides could miss a value of the one that changes fastest: those of
    the golden ratio do not.

    >>> _spread(["a", "b", "c"], 1), _spread(["a", "b", "c"], 2), _spread(["a"], 9)
    (['b'], ['a', 'b'], ['a'])
    """
    size = len(expressions)
    stride = next(step for step in itertools.count(max(1, round(0.618 * size))) if math.gcd(step, size) == 1)
    return [expressions[k] for k in sorted((size // 2 + k * stride) % size for k in range(min(count, size)))]


def _expressions(system: str) -> list[str]:
    """Return a system with every combination of the values to try of its methods."""
    terms = []
    for name, given in split_expression(system):
        known = entry(name)
        set_already, free = options_of(name, given), {}
        for option, values in searches(known.build).items():
            tried = [{**set_already, option: str(value)} for value in values]
            # Beside a λ that is given there is no share to find: an option that no value may be given for is none.
            if option not in set_already and any(_builds(name, one) for one in tried):
                free[option] = values
        choices = [
            ",".join(
                f"{option}={value}" for option, value in {**set_already, **dict(zip(free, one, strict=True))}.items()
            )
            for one in itertools.product(*free.values())
        ]
        terms.append([f"{name}({chosen})" if chosen else name for chosen in choices])
    return ["+".join(one) for one in itertools.product(*terms)]


def _builds(name: str, options: Mapping[str, str]) -> bool:
    try:
        build(name, **options)
    except ConfigError:
        return False
    return True


def tuning_jobs(
    layers: Sequence[RawSettings],
    trials: Sequence[Trial],
    seeds: Sequence[int],
    out: Path,
    orders: Sequence[int | str],
) -> dict[Trial, list[Job]]:
    """Return the runs of every trial, each in a folder of its own; answers are scored on dev rows.

    Args:
        layers: settings as for `everlora.learner.sweep.jobs`.
        trials: what is tried.
        seeds: not those of the final table.
        out: where the folders go.
        orders: of the benchmark's tasks, as for `jobs`.
    """
    # Never test rows: a strength that was chosen on them would be compared on what it was chosen by.
    dev: RawSettings = {"evaluation": {"split": "dev"}}
    found = {}
    for trial in trials:
        point = Tuned(method=trial.method, settings={"train": {"learning_rate": trial.rate}})
        place = out / safe(trial.system) / f"{safe(trial.method)}-rate{trial.rate:g}"
        found[trial] = jobs([*layers, dev], [trial.method], seeds, place, orders=orders, tuned={trial.method: point})
    return found


def measured(todo: Mapping[Trial, Sequence[Job]]) -> list[Trial]:
    """Return the trials with the scores of their runs, all of which have been made.

    Trials of which a run is missing have no scores.
    """
    found = []
    for trial, runs in todo.items():
        scores: list[float | None] = []
        for job in runs:
            if (job.folder / "matrix.json").is_file():
                scores.append(read_matrix(job.folder).metrics.get("oa"))
        # A mean over the runs that happened to finish would favour what fails on the hard ones.
        complete = len(scores) == len(runs) and all(score is not None for score in scores)
        kept = tuple(float(score) for score in scores if score is not None) if complete else ()
        found.append(replace(trial, scores=kept, under=shared_by(runs)))
    return found


def shared_by(runs: Sequence[Job]) -> str:
    """Return the hash of what the runs of all trials share: everything but method, options and rate."""
    spec = runs[0].spec
    train = {name: value for name, value in spec.train.items() if name != "learning_rate"}
    settings = identity(spec.model_copy(update={"train": train, "seed": 0, "order": None}), ANY)
    units = sorted((str(job.spec.order), job.spec.seed) for job in runs)
    # A learner may go on with more tasks, so that these are no part of its identity; here they are what is scored.
    return hashlib.sha256(repr([settings, spec.tasks, units]).encode()).hexdigest()[:16]


def check_same_search(out: Path, todo: Mapping[Trial, Sequence[Job]]) -> None:
    """Refuse a folder whose trials were made under other settings: one table would hold scores of two kinds.

    Raises:
        ConfigError: which systems, or a file of the folder that cannot be read.
    """
    known = {shared_by(runs) for runs in todo.values()}
    other = dict.fromkeys(trial.system for trial in kept(out)[1] if trial.under and trial.under not in known)
    if other:
        raise ConfigError(
            f"{out} holds trials of {', '.join(other)} with other data, settings, orders or seeds than these, and "
            f"scores of both cannot stand in one table; name another --out"
        )


def kept(out: Path) -> tuple[dict[str, RawSettings], list[Trial]]:
    """Return the rows and the trials of earlier searches that a folder holds.

    Raises:
        ConfigError: one of its files cannot be read.
    """
    rows = rows_of(out / TABLE) if (out / TABLE).exists() else {}
    path = out / TRIALS
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return rows, [Trial(**{**one, "scores": tuple(one["scores"])}) for one in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot read the trials in {path} ({error}); move it away, or name another --out") from None


def write(out: Path, trials: Sequence[Trial], command: str) -> dict[str, Trial]:
    """Write all trials, and the best of each system as `everlora sweep --tuned` reads it; return the best.

    Trials of earlier searches that the folder holds count with these. Rows of systems of which no trial was scored
    stay as they are, and where there is no row at all, no table is written.

    Args:
        out: the folder.
        trials: with their scores.
        command: that made them, which stands in the table.

    Raises:
        ConfigError: what the folder holds of an earlier search cannot be read.
    """
    rows, before = kept(out)
    together = _together(before, trials)
    best, found = {}, {}
    for system in dict.fromkeys(trial.system for trial in trials if trial.scores):
        scored = [one for one in together if one.scores and known_system(one.system) == system_of(system)]
        # The first of equals, in the order of the searches, so that the table is the same each time.
        first = best[system] = replace(max(scored, key=lambda one: one.mean), system=system)
        found[system] = {
            "method": first.method,
            "train": {"learning_rate": first.rate},
            "dev": round(first.mean, 2),
            "trials": len(scored),
        }
    anew = {system_of(system) for system in found}
    rest = {system: facts for system, facts in rows.items() if known_system(system) not in anew}
    write_text(out / TRIALS, json.dumps([asdict(trial) for trial in together], indent=1) + "\n")
    if found:
        head = _head(out / TABLE, command, rest)
        write_text(out / TABLE, head + yaml.safe_dump({"systems": {**rest, **found}}, sort_keys=False))
    return best


def _together(before: Sequence[Trial], trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of earlier searches and of this one; of one point the later, unless it alone has no scores."""
    points: dict[tuple[System | str, System | str, float], Trial] = {}
    for trial in (*before, *trials):
        point = (known_system(trial.system), known_system(trial.method), trial.rate)
        if trial.scores or not (point in points and points[point].scores):
            points[point] = trial
    return list(points.values())


def _head(path: Path, command: str, rest: Mapping[str, RawSettings]) -> str:
    """Return the comment above a table: what made its rows, those that stay included."""
    command = " ".join(command.split())  # a line break in it would end the comment
    lines = [f"# Rate and options of each system by dev rows; made by: {command}"]
    if rest:
        above = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        lines = [*above] or lines
        if not any(line.endswith(f": {command}") for line in lines):
            lines.append(f"# then by: {command}")
    return "\n".join(lines) + "\n"
