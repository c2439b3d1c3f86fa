"""The command that lists protocols and shows one."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import yaml
from rich import box
from rich.table import Table

from everlora.cli.catalogue import out_console
from everlora.cli.common import Json


def protocols(
    name: Annotated[str | None, typer.Argument(help="A protocol, or a YAML file of one's own.")] = None,
    as_json: Json = False,
) -> None:
    """List the protocols that --protocol takes, or show one: settings, source, what is unknown."""
    from everlora.core import protocol

    if name is not None:
        one = protocol.read(name)[1].model_dump(exclude_defaults=True)
        typer.echo(json.dumps(one) if as_json else yaml.safe_dump(one, sort_keys=False, allow_unicode=True).rstrip())
        return
    rows = {key: protocol.read(key)[1] for key in protocol.known()}
    if as_json:
        typer.echo(json.dumps({key: found.model_dump() for key, found in rows.items()}))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("protocol", "what it is", "source"):
        table.add_column(head, no_wrap=head == "protocol")
    for key, found in rows.items():
        table.add_row(key, found.title, found.source)
    out_console.print(table)
    out_console.print("everlora protocols NAME shows one; a file like it is one of your own: --protocol FILE.yaml")
