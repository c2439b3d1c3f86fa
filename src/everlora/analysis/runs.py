"""Reads a run back from its folder: its method, its adapters, and what stood before and after each task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import everlora.methods  # noqa: F401  (registers the methods)
from everlora.adapters import files as adapters
from everlora.analysis.holdings import measure_holdings
from everlora.archive.committed import Committed
from everlora.archive.folder import read_matrix, read_run, stages
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.records import Environment, Holdings
from everlora.archive.schema import read_json
from everlora.core.errors import ConfigError, FolderError
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.plugins import missing
from everlora.core.updates import LowRankUpdates, difference
from everlora.settings.spec import LearnerSpec
from everlora.training import memory


@dataclass(frozen=True)
class Run:
    """Holds a run's folder, its settings and its method.

    Attributes:
        path: the folder.
        settings: those of run.yaml.
        method: the method, built again from its name.
        stages: what was learned, in order.
    """

    path: Path
    settings: LearnerSpec
    method: Method
    stages: list[Committed]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read a run.

        Raises:
            FolderError: no run, damaged, or nothing learned yet.
            ConfigError: its method is not known here.
        """
        record, done = read_run(path), stages(path)
        if not done:
            raise FolderError(f"{path} holds no learned task yet")
        return cls(path, record.settings, method_of(path, record), done)

    @property
    def continued(self) -> bool:
        """Return whether one adapter was trained on and on."""
        return self.method.consolidator.rule == "continue"

    def adapters(self) -> Iterator[tuple[str, LowRankUpdates]]:
        """Read names of the tasks and the adapters that they ended with, in order; nothing where none is trained."""
        for stage in self.stages if self.method.adapter.loads_with_peft else ():
            if (stage.path / adapters.WEIGHTS).is_file():
                yield stage.facts.name, adapters.read(stage.path)[0]

    def updates(self) -> Iterator[tuple[str, LowRankUpdates, UpdateHistory, UpdateHistory]]:
        """Read of every task its name, the update that it added, and the history before and after it."""
        before, previous = UpdateHistory(), None
        for name, sites in self.adapters():
            if self.continued and previous is not None:
                added = {n: difference(site, previous[n]) for n, site in sites.items()}
                yield name, added, UpdateHistory((previous,)), UpdateHistory((sites,))
            else:
                yield name, sites, before, before.append(sites)
            before, previous = before.append(sites), sites

    def past(self) -> UpdateHistory:
        """Read the history that the next task is learned on top of."""
        tasks = tuple(sites for _, sites in self.adapters())
        return UpdateHistory(tasks[-1:] if self.continued else tasks)

    def memory_bytes(self) -> int:
        """Count the bytes that the next task needs: what is trained, in fp32, what parts remember, and rows."""
        if self.method.adapter.low_rank:
            rows = sum(stage.facts.stored_row_bytes for stage in self.stages)
            return 4 * self.past().numel + memory.size(self.memory()) + rows
        return read_matrix(self.path).memory_bytes

    def holdings(self) -> Holdings:
        """Measure what the learner holds, from its weights."""
        return measure_holdings(self.method, self.past(), self.memory(), self.memory_bytes())

    def weights(self) -> str | None:
        """Return the type of the base weights that the run was made on, for ``dtype``; None if not recorded."""
        try:
            precision = read_json(Environment, self.path / "environment.json").precision
        except FolderError:
            return None
        return precision.weights if precision else None

    def memory(self) -> memory.Memory:
        """Read what the method's parts remember, apart from the updates."""
        return memory.read(self.stages[-1].path)


def method_of(path: Path, record: RunRecord) -> Method:
    """Build the method of a run again from its name.

    Raises:
        ConfigError: it is not known here.
        FolderError: the name builds another one here.
    """
    amiss = missing(record.origin)
    try:
        method = parse(record.settings.method)
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be read without its method: {amiss or error}") from None
    if Composition.of(method.describe()).plain() != record.composition.plain():
        raise FolderError(
            f"{path} was made by a composition of its own, which the name {method.name!r} does not build"
            + (f": {amiss}" if amiss else "")
        )
    return method
