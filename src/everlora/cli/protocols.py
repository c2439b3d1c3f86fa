"""Lists protocols and shows one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from everlora.cli import completion
from everlora.cli.common import Json, Plugin, say


def protocols(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A protocol, or a YAML file of one's own.", autocompletion=completion.protocols
        ),
    ] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """List the protocols that --protocol takes, or show one: settings, source, what is unknown.

    The hash is that of every run which follows the protocol and changes nothing.
    """
    import yaml

    from everlora.learner.resolve import hash_as_written
    from everlora.settings import protocol

    if name is not None:
        found = protocol.read(name)[1]
        one = {**found.model_dump(exclude_defaults=True), "hash": hash_as_written(found)}
        say(json.dumps(one) if as_json else yaml.safe_dump(one, sort_keys=False, allow_unicode=True).rstrip())
        return
    rows = {key: protocol.read(key)[1] for key in protocol.known()}
    if as_json:
        hashed = {key: {**found.model_dump(), "hash": hash_as_written(found)} for key, found in rows.items()}
        say(json.dumps(hashed))
        return
    from everlora.cli import tables

    heads = ("protocol", "hash", "what it is", "source")
    listed = ((key, hash_as_written(found), found.title, found.source) for key, found in rows.items())
    tables.out_console.print(tables.table("", heads, listed, unbroken=heads[:2]))
    say("everlora protocols NAME shows one; a file like it is one of your own: --protocol FILE.yaml")
