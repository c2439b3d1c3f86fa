"""Defines the commands that change what a learner has learned, or tell what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Plugin, Quiet, Verbose, check_run, interruptible, say
from everlora.cli.learner import HERE, Because, By, Column, Folder, Model, here_now
from everlora.cli.rows import columns_of

if TYPE_CHECKING:
    from everlora.learner.verbs.compact import Compacted
    from everlora.learner.verbs.diff import Difference
    from everlora.learner.verbs.forget import Forgotten, Remains

Discard = Annotated[bool, typer.Option("--discard", help="Delete what is taken away, which is else moved to undone/.")]


@options.takes_settings(only=HERE)
def rollback(
    learner: Folder,
    *,
    to: Annotated[str, typer.Option("--to", metavar="TASK", help="The last task to be known; start for none.")],
    by: By = None,
    because: Because = None,
    discard: Discard = False,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Take a learner back to what it was right after a task, as if it had never been taught those behind it."""
    check_run(learner)
    from everlora.learner.verbs.rollback import rollback as take_back
    from everlora.runtime.console import ConsoleProgress

    here = here_now({**settings, "model": model})
    with ConsoleProgress(quiet=quiet) as shown, interruptible("the learner is as it was, or taken back"):
        found = take_back(learner, to, by=by, because=because, discard=discard, here=here, progress=shown)
    if as_json:
        say(json.dumps(found.plain()))
        return
    say(f"{learner} {f'knows {found.number} tasks, up to {found.task!r}' if found.task else 'knows nothing any more'}")
    _say_where(found.removed, found.undone)


@options.takes_settings(only=HERE)
def forget(
    learner: Folder,
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to forget.")],
    *,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="TASK=FILE", help="Rows that a task was learned from.", rich_help_panel="data"),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", metavar="TASK=FILE", help="Its test rows. [where they were]", rich_help_panel="data"),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option("--test-fraction", metavar="X", help="Without --test, that of --data.", rich_help_panel="data"),
    ] = None,
    column: Column = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Learn the later tasks again, from --data of each of them.")
    ] = False,
    by: By = None,
    because: Because = None,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Let a learner forget a task: its update is removed, or later tasks are learned again; what is left is measured.

    What earlier rollbacks and compactions have put aside is deleted, since it may hold the task.
    """
    check_run(learner)
    from everlora.archive.committed import read_stages
    from everlora.learner.given import given_tasks
    from everlora.learner.verbs.forget import forget as let_go
    from everlora.runtime.console import ConsoleProgress

    columns = columns_of(column)
    files, tests = (
        {n: Path(f) for n, f in options.pairs(*one).items()} for one in ((data, "--data"), (test, "--test"))
    )
    tasks = given_tasks(read_stages(learner, hashes=False), files, tests, columns, test_fraction)
    here = here_now({**settings, "model": model})
    with ConsoleProgress(quiet=quiet) as shown, interruptible("the learner is as it was, or has forgotten"):
        found = let_go(learner, task, tasks, rebuild=rebuild, by=by, because=because, here=here, progress=shown)
    if as_json:
        say(json.dumps({**found.plain(), "statement": found.statement()}, allow_nan=False))
        return
    _show_forgotten(found)


@options.takes_settings(only=HERE)
def compact(
    learner: Folder,
    *,
    rank: Annotated[int, typer.Option("--rank", metavar="R", help="Of the one update that the past becomes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be lost, and change nothing.")] = False,
    by: By = None,
    because: Because = None,
    discard: Discard = False,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Make the past of a learner one update of chosen rank, from which later tasks go on.

    --dry-run tells what that would lose.
    """
    check_run(learner)
    from everlora.learner.verbs.compact import compact as make_one
    from everlora.runtime.console import ConsoleProgress

    acts: dict[str, Any] = {"by": by, "because": because, "discard": discard, "dry_run": dry_run}
    here = here_now({**settings, "model": model})
    with ConsoleProgress(quiet=quiet) as shown, interruptible("the learner is as it was, or compacted"):
        found = make_one(learner, rank, **acts, here=here, progress=shown)
    if as_json:
        say(json.dumps(found.plain(), allow_nan=False))
        return
    _show_compacted(found)


def diff(
    a: Annotated[str, typer.Argument(metavar="A[@TASK]", help="A learner, or as it was after a task.")],
    b: Annotated[str, typer.Argument(metavar="B[@TASK]", help="The one to compare with it.")],
    top: Annotated[int, typer.Option("--top", metavar="N", help="Modules and answers to list.")] = 10,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Tell what differs between two learners, or between one after two of its tasks: weights, scores, answers."""
    from everlora.learner.verbs.diff import diff as compare

    found = compare(a, b, top=top)
    if as_json:
        say(json.dumps(found.plain(), ensure_ascii=False, allow_nan=False))
        return
    _show_difference(found, top)


def _say_where(tasks: list[str], undone: str | None) -> None:
    """Say what became of tasks that were taken away."""
    named = ", ".join(tasks)
    say(
        f"deleted: {named}" if undone is None else f"moved to {undone}: {named} (delete that folder to free its space)"
    )


def _show_forgotten(found: Forgotten) -> None:
    from everlora.cli.tables import number, show, table

    def line(name: str, one: Remains | None) -> list[str]:
        auc = "–" if one is None or one.membership is None else f"{one.membership:.3f}"
        return [name, number(one.score if one else None), auc]

    rows = [line("before", found.before), line("now", found.after), line("never taught it", found.never)]
    show(table(f"what is left of {found.task}", ("learner", "score", "membership AUC"), rows))
    if found.before.membership is not None:
        say(
            f"membership AUC: how well losses tell its {found.before.members} training rows from "
            f"{found.before.others} others; 0.5 is chance"
        )
    others = [(n, number(found.scores_before.get(n)), number(score)) for n, score in found.scores.items()]
    if others:
        show(table("the other tasks", ("task", "before", "now"), others))
    say(found.statement())


def _show_compacted(found: Compacted) -> None:
    from everlora.cli.tables import number, show, table

    say(found.describe())
    if not found.done:
        say("nothing was changed; leave out --dry-run to do it")
        return
    if found.scores:
        rows = [(n, number(found.scores_before.get(n)), number(score)) for n, score in found.scores.items()]
        show(table("", ("task", "before", "now"), rows))
    say(
        f"the updates of {', '.join(found.tasks)} are one now: the learner can no longer be taken back to a task "
        f"before {found.tasks[-1]!r}, nor forget one of them alone"
    )
    _say_where(found.tasks, found.undone)


def _show_difference(found: Difference, top: int) -> None:
    from everlora.cli.tables import number, show, table

    if found.norm is None:
        say(f"weights were not compared: {found.why}")
    else:
        relative = f", relative to the first {found.relative:.3g}" if found.relative is not None else ""
        say(f"what is added to the base model differs by a norm of {found.norm:.3g}{relative}")
        rows = [
            (one.module, f"{one.norm:.3g}", "–" if one.relative is None else f"{one.relative:.3g}")
            for one in found.modules
        ]
        show(table("modules that differ most", ("module", "norm", "relative"), rows))
    if found.scores:
        scores = [(one.task, number(one.a), number(one.b)) for one in found.scores]
        show(table("scores that differ", ("task", found.a, found.b), scores))
    if found.other_rows:
        say(f"not compared, since the two were scored on other test rows: {', '.join(found.other_rows)}")
    if found.compared:
        say(
            f"of {sum(found.compared.values())} test rows that both answered, {len(found.lost)} were right and are "
            f"wrong, {len(found.gained)} were wrong and are right"
        )
    answers = [(one.task, str(one.row), one.target, one.a, one.b) for one in (found.lost + found.gained)[:top]]
    if answers:
        show(table("answers that changed", ("task", "row", "target", found.a, found.b), answers))
    say(f"settings that differ: {', '.join(found.settings) or 'none'}")
