"""Keeps a learner: the commands that make one, teach it, ask it, judge it, and tell what was done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Plugin, Quiet, Verbose, interruptible, say
from everlora.cli.report import WithReport, leave_report
from everlora.cli.rows import TaskData, columns_of
from everlora.cli.run import More, ReportTo
from everlora.core.errors import ConfigError
from everlora.settings.spec import RawSettings

if TYPE_CHECKING:
    from everlora.archive.history import Act
    from everlora.learner.verbs.learn import Learned

OF_A_LEARNER = (
    "model", "revision", "trust_remote_code", "pooling", "head", "dtype", "device", "method", "past", "seed", "prompt",
    "prompt_style", "max_source_length", "max_new_tokens", "scoring", "batch_size",
)  # fmt: skip
Folder = Annotated[Path, typer.Argument(metavar="LEARNER", help="Folder of a learner.")]
By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who does it, for the history.")]
Because = Annotated[str | None, typer.Option("--because", metavar="WHY", help="Why, for the history.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Other name of a column: text, label, prompt, completion, messages, system.",
        rich_help_panel="data",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="MODEL", help="Where its base model is now.", rich_help_panel="model"),
]
LEARNER_SETTINGS = tuple(
    name for name, one in options.SETTINGS.items() if one.path[-1] in OF_A_LEARNER or one.path[0] == "lora"
)
HERE = ("device", "trust_remote_code")
"""Settings of one process."""
TRAINING = tuple(name for name, one in options.SETTINGS.items() if one.path[0] == "train")


@options.takes_settings(only=LEARNER_SETTINGS)
def init(
    learner: Folder,
    *,
    plugin: Plugin = None,
    set_: More = None,
    by: By = None,
    because: Because = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Make a learner: a folder with a base model and a method, to be taught one task after another."""
    from everlora.models.names import check_there

    layers = options.layers(settings, None, set_)
    check_there(str(layers[-1].get("model") or layers[0]["model"]))
    from everlora.learner.opened import create

    with interruptible("nothing was begun"):
        made = create(learner, *layers, by=by, because=because)
    if as_json:
        say(json.dumps({"learner": str(learner), **made.plain()}, allow_nan=False))
    elif not quiet:
        say(f"{learner} is a learner on {made.settings.model} with {made.composition.name}; teach it its first task:")
        say(f"  everlora learn {learner} --name NAME --data FILE")


Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Of the new task.", rich_help_panel="data")]
Data = Annotated[
    str, typer.Option("--data", metavar="FILE", help="Rows to learn: jsonl, json, csv, …", rich_help_panel="data")
]
Test = Annotated[
    str | None, typer.Option("--test", metavar="FILE", help="Rows to be judged by.", rich_help_panel="data")
]
Fraction = Annotated[
    float | None,
    typer.Option("--test-fraction", metavar="X", help="Without --test, that of --data. [0.1]", rich_help_panel="data"),
]
Probe = Annotated[
    int,
    typer.Option("--keep-probe", metavar="N", help="Test rows the learner may keep.", rich_help_panel="data"),
]
Lose = Annotated[
    float | None,
    typer.Option(
        "--may-lose", metavar="POINTS", help="What earlier tasks may lose on average.", rich_help_panel="training"
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Commit it even if they lose more.", rich_help_panel="training")]
Foretold = Annotated[
    bool,
    typer.Option(
        "--forecast/--no-forecast", help="Say first what earlier tasks will lose.", rich_help_panel="training"
    ),
]
Instruction = Annotated[
    str, typer.Option("--instruction", metavar="TEXT", help="What to do, in a sentence.", rich_help_panel="data")
]
Labels = Annotated[
    str | None, typer.Option("--labels", metavar="A,B", help="All answers. [those of --data]", rich_help_panel="data")
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="How answers are scored. [exact_match]", rich_help_panel="data"),
]

Turns = Annotated[
    str,
    typer.Option("--learn-turns", metavar="WHICH", help="Answers of a chat: last or all.", rich_help_panel="data"),
]


@options.takes_settings(only=(*TRAINING, "save_steps", *HERE))
def learn(
    learner: Folder,
    *,
    name: Name,
    data: Data,
    test: Test = None,
    test_fraction: Fraction = None,
    keep_probe: Probe = 0,
    may_lose: Lose = None,
    force: Force = False,
    forecast: Foretold = True,
    instruction: Instruction = "",
    labels: Labels = None,
    metric: Metric = None,
    learn_turns: Turns = "last",
    column: Column = None,
    model: Model = None,
    plugin: Plugin = None,
    set_: More = None,
    by: By = None,
    because: Because = None,
    with_report: WithReport = True,
    report_to: ReportTo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Teach a learner one more task. The data of earlier tasks are not needed, nor is anything else but its folder."""
    from everlora.cli.common import check_run

    check_run(learner)
    typed = dict(options.layers(settings, None, set_)[-1])
    files = TaskData(name, data, test, test_fraction, labels, instruction, metric, column or [], learn_turns)
    task = files.load()
    if keep_probe < 0:
        raise ConfigError(f"--keep-probe must be at least 0, not {keep_probe}")
    if may_lose is not None and not 0 <= may_lose <= 100:
        raise ConfigError(f"--may-lose is a number of points from 0 to 100, not {may_lose}")
    from everlora.learner.teaching import Teaching
    from everlora.learner.verbs.learn import learn as teach
    from everlora.runtime.console import ConsoleProgress, trackers

    given: Any = typed.pop("train")
    train = {key: value for key, value in given.items() if value is not None}
    how: Any = {"keep_tests": keep_probe, "may_lose": may_lose, "force": force, "forecast": forecast}
    teaching = Teaching(by=by, because=because, train=train, test=files.test_file(), **how)
    here = here_now({**typed, "model": model})
    with ConsoleProgress(quiet=quiet) as shown, interruptible("what is committed stands, give the same command again"):
        shown.callbacks = trackers(report_to)
        done = teach(learner, task, teaching, here, progress=shown)
    _show_learned(learner, done, as_json)
    leave_report(learner, wanted=with_report)


def _show_learned(learner: Path, done: Learned, as_json: bool) -> None:
    """Say what came of a task."""
    if as_json:
        say(json.dumps(done.plain(), allow_nan=False))
        return
    from everlora.cli.tables import number, show, table

    expected = {one.task: one.text for one in done.forecast.risks} if done.forecast else {}
    rows = [
        (one, number(done.before.get(one)), number(done.scores.get(one)), expected.get(one, "–"))
        for one in {**expected, **done.scores}
    ]
    show(table(f"after {done.task}", ("task", "before", "now", "expected to lose"), rows))
    if done.spent is not None:
        cost = f"{done.spent.lost:.1f} ± {done.spent.error:.1f} points on {done.spent.rows} rows of earlier tasks"
        if done.spent.forecast:
            cost = f"{done.spent.lost:.1f} points by the forecast, since no rows of earlier tasks are at hand"
        say(f"within {done.spent.may_lose:g} points: {100 * done.spent.share:.0f} % of the update is taken, at {cost}")
    if done.predicted_rise is not None:
        say(f"predicted rise of all earlier tasks' loss: {done.predicted_rise:.2g} nats per row")
    say(f'{learner} has learned {done.task!r}, its task {done.number}; ask it: everlora ask {learner} "…"')


def here_now(settings: RawSettings) -> RawSettings:
    """Return what was given of the settings of this process."""
    return {key: value for key, value in settings.items() if value is not None}


@options.takes_settings(only=HERE)
def evaluate(
    learner: Folder,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="TASK=FILE", help="Test rows of a task, in place of those at hand."),
    ] = None,
    column: Column = None,
    keep_probe: Probe = 0,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Score a learner as it is now, on every task whose test rows are at hand or kept."""
    from everlora.cli.common import check_run

    check_run(learner)
    if keep_probe < 0:
        raise ConfigError(f"--keep-probe must be at least 0, not {keep_probe}")
    from everlora.learner.opened import given_tests
    from everlora.learner.verbs.evaluate import evaluate as judge
    from everlora.runtime.console import ConsoleProgress

    columns = columns_of(column)
    files = {name: Path(file) for name, file in options.pairs(data, "--data").items()}
    here = here_now({**settings, "model": model})
    with ConsoleProgress(quiet=quiet) as shown, interruptible("nothing was changed"):
        tests = given_tests(learner, files, columns)
        found = judge(learner, tests, keep=keep_probe, here=here, progress=shown)
    if as_json:
        say(json.dumps(found.plain(), allow_nan=False))
        return
    from everlora.cli.tables import number, show, table

    rows = [
        (name, number(found.when_learned.get(name)), number(score), str(found.rows[name]))
        for name, score in found.scores.items()
    ]
    show(table(f"{learner} now", ("task", "when learned", "now", "rows"), rows))
    if found.missing:
        say(f"not scored, since no test rows are at hand: {', '.join(found.missing)} (give --data TASK=FILE)")
    if found.other_rows:
        say(f"scored on fewer or other rows than when it was learned, and so not noted: {', '.join(found.other_rows)}")


def history(learner: Folder, as_json: Json = False) -> None:
    """Tell what was done to a learner: when, what, by whom and why."""
    from everlora.archive.folder import read_run
    from everlora.archive.history import read_history

    read_run(learner)
    acts = read_history(learner)
    if as_json:
        say(json.dumps([act.plain() for act in acts], ensure_ascii=False))
        return
    if not acts:
        say(f"{learner} has no history: it followed a benchmark (everlora status {learner})")
        return
    from everlora.cli.tables import show, table

    rows = [(act.date, act.act, _tasks_of(act), act.by or "–", act.because or "–") for act in acts]
    show(table(str(learner), ("date", "what", "tasks", "by", "because"), rows))


def _tasks_of(act: Act) -> str:
    """Return the tasks of an act, and how many of their test rows it kept."""
    kept = act.kept or {}
    return ", ".join(f"{name} ({kept[name]} rows kept)" if name in kept else name for name in act.tasks) or "–"
