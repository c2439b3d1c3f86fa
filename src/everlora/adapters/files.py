"""Reads and writes adapters on disk, as standard PEFT folders, without loading a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Required, TypedDict

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from everlora.adapters.streamed import MadeTensors, save_file
from everlora.adapters.targets import as_patterns
from everlora.archive.atomic import staged_files
from everlora.archive.results import ExportLoss
from everlora.core.errors import FolderError
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.stacked import SummedPast
from everlora.core.updates import LowRank, LowRankUpdates, nearest, sketched
from everlora.settings.lora import OF_TARGETS

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
MERGED_RANK = 64


class SavedConfig(TypedDict, total=False):
    """Holds the keys of PEFT's ``adapter_config.json`` that the scale of an update follows from."""

    peft_type: Required[str]
    lora_alpha: Required[float]
    r: int
    init_r: int
    use_rslora: bool
    rank_pattern: dict[str, float] | None
    alpha_pattern: dict[str, float] | None


FACTOR = re.compile(r"(.+)\.lora_([ABE])(?:\.weight)?")
"""The name of a factor of an update: its module, and which one it is."""


def read(folder: Path, scale: float | None = None) -> tuple[dict[str, LowRank], dict[str, Tensor]]:
    """Read a PEFT adapter: its updates by module, and every other tensor (a classification head) by name.

    Args:
        folder: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, LoRA or AdaLoRA.
        scale: the scale of the updates; by default what the configuration says.

    Raises:
        FolderError: the file is missing, damaged or empty.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
        config: SavedConfig = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        svd = config["peft_type"] == "ADALORA"
        names = {found[1] for key in tensors if (found := FACTOR.fullmatch(key.removeprefix(PREFIX)))}
        scales = {name: _scale(config, name) if scale is None else scale for name in names}
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise FolderError(f"the adapter in {folder} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise FolderError(f"{folder / 'adapter_config.json'} is damaged; restore it from a copy") from error
    factors: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX)
        found = FACTOR.fullmatch(name)
        if found:
            # In fp32, in which updates are added up, whatever type they were stored in.
            factors.setdefault(found[1], {})[found[2]] = tensor.float()
        else:
            rest[name] = tensor
    if not factors:
        raise FolderError(f"the adapter in {folder} holds no LoRA weights")
    try:
        sites = {n: LowRank(f["A"], f["B"], scales[n], f["E"] if svd else None) for n, f in factors.items()}
    except KeyError as error:
        raise FolderError(f"the adapter in {folder} is incomplete: a factor lora_{error.args[0]} is missing") from None
    return sites, rest


def _scale(config: SavedConfig, name: str) -> float:
    """Return PEFT's scaling of one module, alpha / r or alpha / √r, with alpha and r of its own where patterns say."""
    alpha = float(config["lora_alpha"])
    if config["peft_type"] == "ADALORA":  # its forward divides by rank + 1e-5, LoRA's by the rank
        return alpha / float(config["init_r"] + 1e-5)
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    r, alpha = float(_of_module(ranks, name) or config["r"]), float(_of_module(alphas, name) or alpha)
    return float(alpha / (math.sqrt(r) if config.get("use_rslora") else r))


def _of_module(patterns: Mapping[str, float], name: str) -> float | None:
    """Return the value that patterns give a module, None where no pattern matches it.

    Raises:
        FolderError: patterns disagree, and the file no longer says which of them stood first.
    """
    found = {key: value for key, value in patterns.items() if get_pattern_key([key], name) is key}
    if len(set(found.values())) > 1:
        raise FolderError(
            f"adapter_config.json: the patterns {', '.join(map(repr, sorted(found)))} give {name!r} different values, "
            f"and their order is lost, since PEFT sorts them; write one pattern per module"
        )
    return next(iter(found.values()), None)


def write(folder: Path, sites: LowRankUpdates, rest: dict[str, Tensor], like: Path) -> None:
    """Write updates as one PEFT LoRA adapter.

    An update of any scale is written with PEFT's scaling of 1 (alpha = r), its factor being part of B.

    Args:
        folder: the folder to write to.
        sites: the updates by module, each of its own rank.
        rest: other tensors, such as a classification head, by their names in the model.
        like: an adapter folder whose settings (base model, target modules, task type) are taken over.

    Raises:
        FolderError: it cannot be written, or reads back as something else.
    """
    ranks = {name: site.rank for name, site in sites.items()}
    highest = max(ranks.values())
    there = json.loads((like / "adapter_config.json").read_text(encoding="utf-8"))
    shared = ("task_type", "base_model_name_or_path", "revision", "target_modules", "modules_to_save")
    if_set = ("fan_in_fan_out", *OF_TARGETS)
    taken = (*shared, *(name for name in if_set if there.get(name)))
    config = LoraConfig(**{name: there.get(name) for name in taken}, inference_mode=True)
    config.r = config.lora_alpha = highest
    # alpha = r module by module keeps every scale at 1.
    if len(set(ranks.values())) > 1:
        own = {name: rank for name, rank in ranks.items() if rank != highest}
        config.rank_pattern = config.alpha_pattern = as_patterns(own, ranks)
    # One module at a time: the sum of all tasks is the largest thing that a learner of many tasks writes.
    makers: dict[str, Callable[[], Tensor]] = {f"{PREFIX}{name}": tensor.contiguous for name, tensor in rest.items()}
    for name in sites:
        makers[f"{PREFIX}{name}.lora_A.weight"] = partial(_factor, sites, name, "A")
        makers[f"{PREFIX}{name}.lora_B.weight"] = partial(_factor, sites, name, "B")
    tensors = MadeTensors(makers)
    # Renaming is atomic: a reader never finds half a file.
    try:
        with staged_files(folder, WEIGHTS) as place:
            save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
            config.save_pretrained(str(place))
            if not (place / WEIGHTS).is_file():  # or those of before would stay, beside another configuration
                raise OSError(f"{WEIGHTS} is gone as soon as it is written")
    except (OSError, SafetensorError) as error:
        raise FolderError(f"the adapter cannot be written to {folder}: {' '.join(str(error).split())}") from error
    if not _reads_back(folder, tensors, sites):
        raise FolderError(f"the adapter in {folder} reads back as something else than was written; look at the disk")


def _factor(sites: LowRankUpdates, name: str, which: str) -> Tensor:
    """Return a factor of a module's update, whose scale is part of B."""
    return sites[name].absorb_scale().tensors[which].contiguous()


def _reads_back(folder: Path, tensors: Mapping[str, Tensor], sites: LowRankUpdates) -> bool:
    """Return whether an adapter is read as it was written, by any reader: with these tensors, and scales of 1.

    Raises:
        FolderError: it cannot be read.
    """
    try:
        config: SavedConfig = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = set(file.keys())
        # Which scale a module has, PEFT's patterns alone decide.
        same = names == set(tensors) and all(_scale(config, name) == 1.0 for name in sites)
        for name in tensors if same else ():
            with safe_open(folder / WEIGHTS, "pt") as file:  # anew, so that what was read is let go
                found = file.get_tensor(name)
            same = same and torch.equal(found, tensors[name])
    except (OSError, SafetensorError, ValueError) as error:
        raise FolderError(f"the adapter in {folder} cannot be read: {error}") from error
    return same


def merge_past(past: UpdateHistory, merge: Merge | None, rank: int | None = None) -> tuple[LowRankUpdates, ExportLoss]:
    """Return a past as one update per module: the exact sum, or a merge of limited rank.

    Args:
        past: the updates of the tasks, oldest first.
        merge: how they are merged; None for their sum.
        rank: highest rank of a merged update; by default as many as the factors have together, and at least 64.

    Returns:
        The updates, and for a merge what the truncation has lost, the relative error ‖M − M̂‖_F / ‖M‖_F over
        all modules.
    """
    # One update is not merged with anything, as below an adapter (`FoldedBase.set_past`); its factors are exact.
    if merge is None or len(past) < 2:
        return SummedPast(past), ExportLoss()
    sites, lost, size = dict[str, LowRank](), 0.0, 0.0
    for name in past.sites:
        merged = past.merged(name, merge)
        # A merge is no longer of low rank, but the adapter at the root of the folder must be.
        limit = rank or max(MERGED_RANK, sum(delta[name].rank for delta in past))
        # After every task, so without an SVD; whoever chooses a rank waits for the nearest.
        sites[name] = nearest(merged, limit) if rank else sketched(merged, limit)
        lost += float((merged - sites[name].dense()).norm()) ** 2
        size += float(merged.norm()) ** 2
    highest = max(site.rank for site in sites.values())
    return sites, ExportLoss(export_rank=highest, export_error=(lost / size) ** 0.5 if size else 0.0)


def equal(a: LowRankUpdates, b: LowRankUpdates) -> bool:
    """Return whether two adapters are equal bit for bit.

    >>> from everlora.core.updates import LowRank
    >>> a = {"q": LowRank(torch.ones(1, 2), torch.ones(2, 1), 1.0)}
    >>> equal(a, {"q": a["q"].map(torch.clone)}), equal(a, {"q": a["q"].map(torch.neg)})
    (True, False)
    """
    return a.keys() == b.keys() and all(
        a[n].scale == b[n].scale
        and a[n].tensors.keys() == b[n].tensors.keys()
        and all(torch.equal(tensor, b[n].tensors[key]) for key, tensor in a[n].tensors.items())
        for n in a
    )
