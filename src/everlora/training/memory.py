"""Keeps what parts remember from task to task in addition to the tasks' updates, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import cast, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from everlora.adapters import AdapterBackend
from everlora.core.errors import ConfigError, FolderError
from everlora.core.method import Method
from everlora.core.roles import NO_EVIDENCE, Evidence, HasMemory, NeedsEvidence, PostProcesses, State
from everlora.core.updates import LowRank, Updates
from everlora.runtime.memory import physical_memory
from everlora.runtime.sizes import size as readable

Memory = dict[str, dict[str, State]]
"""By part, by module."""
FILE = "memory.safetensors"


def check_fits(parts: Sequence[HasMemory], live: Updates) -> None:
    """Refuse, before a task is trained, what parts will remember of it that there is no memory for.

    A curvature is measured of all modules at once, whatever is stored of it afterwards: two factors of each, dense or,
    where the part's store is low-rank and they are wide, as roots.

    Args:
        parts: those that remember something.
        live: the adapter that is about to be trained.

    Raises:
        ConfigError: more memory is needed than there is.
    """
    # Where memory is overcommitted, the system would end the process behind a task's last step without a word.
    held, sites = physical_memory(), [site for site in live.values() if isinstance(site, LowRank)]
    if held is None or not sites:
        return
    widest = "{} x {}".format(*max((site.shape for site in sites), key=sum))
    needed = _needed(parts, sites)
    if needed <= held:
        return
    found = _smaller_store(parts, sites, held)
    cure = f"store={found}, or " if found else ""
    names = [repr(part.name) for part in parts if _stored(part, sites)]
    kept = f"{' and '.join(names)} {'remembers' if len(names) == 1 else 'remember'} of {len(sites)} modules"
    raise ConfigError(
        f"what {kept} (the widest {widest}) needs {readable(needed)}, and there are {readable(held)}; "
        f"take {cure}fewer or narrower modules (--lora-target-modules, --lora-layers)"
    )


def _needed(parts: Sequence[HasMemory], sites: Sequence[LowRank]) -> int:
    """Return how many bytes parts take: their memories at once, and one curvature at a time while it is measured."""
    return sum(_stored(part, sites) for part in parts) + max((_measured(part, sites) for part in parts), default=0)


def _stored(part: HasMemory, sites: Sequence[LowRank]) -> int:
    """Return how many bytes what a part remembers of modules takes."""
    return sum(part.memory_bytes(*site.shape, site.rank, 1) for site in sites)


def _measured(part: HasMemory, sites: Sequence[LowRank]) -> int:
    """Return how many bytes a part's curvature takes while it is measured; 0 where it has none."""
    if not isinstance(part, NeedsEvidence) or part.evidence != "curvature":
        return 0
    widths = [n for site in sites for n in site.shape]
    measured, at_work = 0, 0
    for n in widths:
        columns = part.root_columns(n)
        measured += 4 * (n * n if columns is None else n * (columns + 1) + 1)
        # One root at a time is joined with another in fp32, and decomposed and squared in fp64.
        at_work = max(at_work, 0 if columns is None else 24 * n * columns)
    return measured + at_work


def _smaller_store(parts: Sequence[HasMemory], sites: Sequence[LowRank], held: int) -> str | None:
    """Return the first store of the largest part with which all fit into so many bytes; None where none does."""
    largest, *others = sorted(parts, key=lambda part: -_needed([part], sites))
    if not is_dataclass(largest) or all(one.name != "store" for one in fields(largest)):
        return None
    for store in get_args(get_type_hints(type(largest))["store"]):
        if _needed([cast(HasMemory, replace(largest, store=store)), *others], sites) <= held:
            return str(store)
    return None


def remember(
    parts: Sequence[HasMemory],
    memory: Memory,
    update: Updates,
    *,
    continued: bool,
    look: Callable[[NeedsEvidence], Mapping[str, Evidence]] = lambda part: {},
) -> Memory:
    """Return what the parts remember after a task that ended at ``update``.

    Where one adapter is trained on and on, the memory of earlier tasks is replaced, but for parts that accumulate.

    Args:
        parts: those that remember something.
        memory: what they remembered before.
        update: the adapter as the task left it.
        continued: whether one adapter is trained on and on.
        look: measures the evidence that a part needs.
    """
    memories: Memory = {}
    for part in parts:
        # One adapter that goes on holds every task so far, so what was remembered of it a task ago is out of date,
        # unless a part sums over tasks itself.
        fresh = continued and not part.needs.cumulative_memory
        before = {} if fresh else memory.get(part.name, {})
        evidence = look(part) if isinstance(part, NeedsEvidence) else {}
        memories[part.name] = {
            name: part.remember(cast(LowRank, site), before.get(name, {}), evidence.get(name, NO_EVIDENCE))
            for name, site in update.items()
        }
    return memories


def finished(
    method: Method, backend: AdapterBackend, update: Updates, answered: Updates | None, number: int
) -> Updates:
    """Return what answers after task ``number`` ended at ``update``, once the parts that change it have done so."""
    parts = [part for part in method.parts() if isinstance(part, PostProcesses)]
    for part in parts:
        before = cast(Mapping[str, LowRank], answered or {})
        update = {n: part.finish(cast(LowRank, site), before.get(n), number) for n, site in update.items()}
    # The model answers and is saved with what is on it, so what parts have changed must stand there as well.
    if parts:
        backend.set_values(update)
    return update


def size(memory: Memory) -> int:
    """Return the number of bytes that a memory takes."""
    return sum(t.nbytes for sites in memory.values() for state in sites.values() for t in state.values())


def write(folder: Path, memory: Memory) -> None:
    """Write the memory to the folder of an adapter; nothing is written if nothing is remembered.

    Raises:
        FolderError: it reads back as something else.
    """
    flat = {
        f"{part}/{site}/{key}": tensor.contiguous()
        for part, sites in memory.items()
        for site, state in sites.items()
        for key, tensor in state.items()
    }
    if flat:
        # Read back at once, while the task can still fail: otherwise a bad disk would show a task later, when the rows
        # may be gone.
        save_file(flat, folder / FILE)
        again = _flat(folder)
        same = again.keys() == flat.keys() and all(_same_bytes(t, again[name]) for name, t in flat.items())
        if not same:
            raise FolderError(f"{folder / FILE} reads back as something else than was written; look at the disk")


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    here, there = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))  # NaN equals itself, too
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(here, there)


def read(folder: Path) -> Memory:
    """Read the memory of a committed stage; empty if there is none.

    Raises:
        FolderError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return {}
    memory: Memory = {}
    for name, tensor in _flat(folder).items():
        # Paths of modules have dots; neither they nor names of parts and tensors have a slash.
        part, site, key = name.split("/")
        memory.setdefault(part, {}).setdefault(site, {})[key] = tensor
    return memory


def _flat(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{folder / FILE} cannot be read: {error}") from error


def by_memory(names: Sequence[str], memories: Mapping[str, Mapping[str, State]]) -> Iterator[tuple[str, ...]]:
    """Split modules of one shape by the shapes of what parts remember of them, so that it can be stacked."""
    alike: dict[object, list[str]] = {}
    for name in names:
        held = [(part, memory.get(name, {})) for part, memory in memories.items()]
        # Sorted: the order of keys depends on whether memory was made here or read from disk, and means nothing.
        kind = tuple((part, key, tensor.shape) for part, state in held for key, tensor in sorted(state.items()))
        alike.setdefault(kind, []).append(name)
    return (tuple(some) for some in alike.values())


def stacked(memory: Mapping[str, State], names: Sequence[str]) -> State:
    """Return what a part remembers of these modules, stacked; empty if it remembers nothing yet."""
    mine = [memory[name] for name in names if name in memory]
    return {key: torch.stack([one[key] for one in mine]) for key in mine[0]} if mine else {}
