"""A run read back from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlora.adapters import files as adapters
from everlora.archive.folder import Committed, identified, stages
from everlora.core.errors import ConfigError, FolderError
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.plugins import missing
from everlora.core.updates import LowRankUpdates, difference
from everlora.training import memory


@dataclass(frozen=True)
class Run:
    """A run's folder, its settings and its method.

    Attributes:
        path: the folder.
        settings: as they stand in run.yaml.
        method: the method, built again from its name.
        stages: what was learned, in order.
    """

    path: Path
    settings: dict[str, Any]
    method: Method
    stages: list[Committed]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read a run.

        Raises:
            FolderError: no run, damaged, or nothing learned yet.
            ConfigError: its method is not known here.
        """
        facts, done = identified(path), stages(path)
        if not done:
            raise FolderError(f"{path} holds no learned task yet")
        amiss = missing(facts.get("origin") or ())
        try:
            method = parse(facts["settings"]["method"])
        except ConfigError as error:
            raise ConfigError(f"{path} cannot be read without its method: {amiss or error}") from None
        if json.loads(json.dumps(method.describe())) != facts["composition"]:
            raise FolderError(
                f"{path} was made by a composition of its own, which the name {method.name!r} does not build"
                + (f": {amiss}" if amiss else "")
            )
        return cls(path, facts["settings"], method, done)

    @property
    def continued(self) -> bool:
        """Whether one adapter was trained on and on."""
        return self.method.consolidator.rule == "continue"

    def adapters(self) -> Iterator[tuple[str, LowRankUpdates]]:
        """Names of the tasks and the adapters that they ended with, in order; nothing for methods that train none."""
        for stage in self.stages if self.method.adapter.loads_with_peft else ():
            if (stage.path / adapters.WEIGHTS).is_file():
                yield stage.facts["name"], adapters.read(stage.path)[0]

    def updates(self) -> Iterator[tuple[str, LowRankUpdates, UpdateHistory, UpdateHistory]]:
        """For every task: its name, what it added, and what stood before and after it."""
        before, previous = UpdateHistory(), None
        for name, sites in self.adapters():
            if self.continued and previous is not None:
                added = {n: difference(site, previous[n]) for n, site in sites.items()}
                yield name, added, UpdateHistory((previous,)), UpdateHistory((sites,))
            else:
                yield name, sites, before, before.append(sites)
            before, previous = before.append(sites), sites

    def past(self) -> UpdateHistory:
        """What the learner has taken in so far."""
        tasks = tuple(sites for _, sites in self.adapters())
        return UpdateHistory(tasks[-1:] if self.continued else tasks)

    def kept_bytes(self) -> int:
        """Bytes that the next task needs: updates, or whatever else is trained, in fp32, and what parts remember."""
        if self.method.adapter.low_rank:
            rows = sum(stage.facts.get("kept_row_bytes", 0) for stage in self.stages)
            return 4 * self.past().numel + memory.size(self.memory()) + int(rows)
        noted: int = json.loads((self.path / "matrix.json").read_text(encoding="utf-8"))["kept_bytes"]
        return noted

    def weights(self) -> str | None:
        """The type of the base weights that the run was made on, for ``dtype``; None if it was not recorded."""
        try:
            noted = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
            found: str = noted["precision"]["weights"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def memory(self) -> memory.Memory:
        """What the method's parts remember beside the updates."""
        return memory.read(self.stages[-1].path)
