"""Looks after a learner: what is amiss on this machine, and how it is put on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from everlora.cli.common import Json, check_run, say

Learner = Annotated[Path, typer.Argument(metavar="LEARNER", help="Folder of a learner.")]


def doctor(
    learner: Annotated[Path | None, typer.Argument(metavar="[LEARNER]", help="Folder of a learner.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what is amiss with this machine, or with a learner, and what to do."""
    from everlora.learner.verbs.doctor import doctor as examine

    found = examine(learner)
    if as_json:
        say(json.dumps({"sound": found.sound, **found.plain()}, ensure_ascii=False))
    else:
        for one in found.findings:
            say(f"{one.state:4}  {one.what}: {one.detail}" + (f"\n      {one.cure}" if one.cure else ""))
    if not found.sound:
        raise typer.Exit(1)


def push(
    learner: Learner,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.")],
    with_tasks: Annotated[bool, typer.Option("--with-tasks", help="The folders of its tasks, too.")] = False,
    with_rows: Annotated[bool, typer.Option("--with-rows", help="Rows of data that it keeps, too.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A repository that is made is public.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    because: Annotated[str | None, typer.Option("--because", metavar="WHY", help="Message of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Put a learner on the Hub: adapter, card and records; rows that it keeps stay here unless you say otherwise."""
    check_run(learner)
    from everlora.export.hub import push as upload

    done = upload(
        learner, repo, tasks=with_tasks, rows=with_rows, private=not public, dry_run=dry_run, because=because
    )
    if as_json:
        say(json.dumps(done.plain()))
        return
    for file in done.files if dry_run else ():
        say(f"  {file}")
    sent = f"{len(done.files)} files, {done.bytes / 1e6:.1f} MB"
    say(f"{sent} would go to {repo}; nothing was sent" if dry_run else f"{sent} are at {done.url}")
