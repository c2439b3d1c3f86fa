"""Asks a learner on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, Plugin, Quiet, check_run, interruptible, say
from everlora.cli.learner import HERE, Folder, Model, here_now
from everlora.cli.rows import coming_questions, read_questions
from everlora.core.errors import ConfigError, printable

if TYPE_CHECKING:
    from everlora.settings.spec import RawSettings


@options.takes_settings(only=HERE)
def ask(
    learner: Folder,
    questions: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to ask.")] = None,
    *,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Ask as a row of this task. [the newest]")] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Questions, a line each: texts, or JSON Lines; - for stdin."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show answers while they are written, and take each line as it comes.")
    ] = False,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Ask a learner: it answers as it has learned to for one of its tasks."""
    check_run(learner)
    here = here_now({**settings, "model": model})
    if stream:
        coming = coming_questions() if file == "-" else iter(read_questions(file) if file else ())
        _stream(learner, [*(questions or [])], coming, task, here, as_json=as_json, quiet=quiet)
        return
    texts: list[Any] = [*(questions or []), *(read_questions(file) if file else [])]
    if not texts:
        raise ConfigError("give a text to ask, or --file (- for stdin)")
    from everlora.learner.verbs.ask import ask as answer

    with interruptible("nothing was changed"):
        found = answer(learner, texts, task=task, here=here)
    if task is None and not quiet:
        _say_as(found[0].task)
    for one in found:
        say(json.dumps(one.plain(), ensure_ascii=False) if as_json else one.answer)


def _stream(
    learner: Path,
    first: list[Any],
    coming: Iterable[Any],
    task: str | None,
    here: RawSettings,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Answer questions one by one; of JSON, a line stands when its answer is written."""
    from everlora.learner.opened import load_learner
    from everlora.learner.verbs.ask import stream as answers

    def given() -> Iterable[Any]:
        yield from first
        yield from coming

    def show(piece: str) -> None:
        typer.echo(printable(piece), nl=False)
        typer.get_text_stream("stdout").flush()

    with interruptible("nothing was changed"):
        loaded = load_learner(learner, here, read_only=True)
        for number, one in enumerate(answers(loaded, given(), task, None if as_json else show)):
            if number == 0 and task is None and not quiet:
                _say_as(one.task)
            say(json.dumps(one.plain(), ensure_ascii=False) if as_json else "")
            typer.get_text_stream("stdout").flush()


def _say_as(task: str) -> None:
    say(f"asked as a row of task {task!r}; --task chooses another", err=True)
