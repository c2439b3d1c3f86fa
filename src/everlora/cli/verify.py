"""Looks whether a learner is sound, and makes again what can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, Plugin, interruptible, say
from everlora.cli.learner import HERE, Folder, Model, here_now
from everlora.core.errors import ConfigError

if TYPE_CHECKING:
    from everlora.archive.verdict import Verdict


@options.takes_settings(only=HERE)
def verify(
    learner: Folder,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Only whether all files are there.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Also what stands in the files.")] = False,
    logits: Annotated[
        bool, typer.Option("--logits", help="Also whether transformers and PEFT alone answer as it does.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="First make again what can be.")] = False,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity",
            help="Then write PARITY, which restores any one lost file of a task; --parity 5%: if it takes no more.",
        ),
    ] = False,
    parity_limit: Annotated[str | None, typer.Option("--parity-limit", hidden=True)] = None,
    max_duration: Annotated[
        float | None, typer.Option("--max-duration", metavar="SECONDS", help="Read no further file after that.")
    ] = None,
    model: Model = None,
    plugin: Plugin = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Look whether a learner's folder is sound: all files are there, and what was written. Status 1 if not."""
    if quick + data + logits > 1:
        raise ConfigError("--quick, --data and --logits are depths: give one of them")
    if max_duration is not None and max_duration <= 0:
        raise ConfigError(f"--max-duration must be more than 0 seconds, not {max_duration:g}")
    most = percent(parity_limit)
    from everlora.learner.verbs import repair as repairing
    from everlora.learner.verbs import verify as verifying

    here = here_now({**settings, "model": model})
    depth: Any = next((name for name, on in (("quick", quick), ("data", data), ("logits", logits)) if on), "hashes")
    with interruptible("what was looked at was not changed, but by --repair"):
        made = repairing.repair(learner, here).repaired if repair else []
        found = verifying.verify(learner, depth, seconds=max_duration, here=here)
        found = found.model_copy(update={"repaired": made})
        if parity and not found.problems:
            found = found.model_copy(update={"notes": [*found.notes, verifying.keep_parity(learner, most)]})
    say(
        json.dumps({"state": found.state, **found.plain()}, allow_nan=False)
        if as_json
        else report(found, str(learner))
    )
    if found.problems:
        raise typer.Exit(1)


def percent(text: str | None) -> float | None:
    """Read a share like ``5%``.

    >>> percent("2.5 %"), percent(None)
    (2.5, None)

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return None
    try:
        found = float(text.rstrip(" %"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 100:
        raise ConfigError(f"--parity takes nothing, or a share of the folder such as 5%, not {text!r}")
    return found


def report(found: Verdict, name: str) -> str:
    """Return what was found as lines of text."""
    size = f"{found.size / 1e6:.1f} MB" if found.size >= 1e5 else f"{found.size / 1e3:.1f} kB"
    lines = [f"repaired: {one}" for one in found.repaired]
    lines += [f"{one.file}: {one.what}; {one.cure}" for one in found.problems]
    lines += [f"unfinished: {one}" for one in found.unfinished]
    lines += [f"note: {one}" for one in found.notes]
    if found.unseen:
        lines.append(f"not looked at, since the time was up: {', '.join(found.unseen)}")
    count = f"{len(found.problems)} problems, " if found.problems else ""
    return "\n".join([*lines, f"{name} is {found.state}: {count}{found.tasks} tasks, {found.files} files, {size}"])
