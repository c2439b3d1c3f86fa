"""Exports a learner as one thing: a model with everything folded in, exact, or one PEFT adapter of chosen rank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from everlora.adapters import files as adapters
from everlora.adapters.hooked import load_form
from everlora.adapters.osf import OsfBackend
from everlora.analysis.runs import Run
from everlora.archive.atomic import explained, staged, write_json, write_text
from everlora.archive.export_card import ExportFacts, check_scores, export_card
from everlora.archive.folder import read_matrix, read_run
from everlora.core.errors import ConfigError, FolderError
from everlora.core.updates import LowRankUpdates, truncated
from everlora.data.task import Example, Task
from everlora.export.targets import DTYPES
from everlora.models.layers import matrix_of
from everlora.models.loading import Loaded
from everlora.models.weights import quantization_of

CARD = "README.md"
_OF_TRANSFORMERS_4 = ("rope_theta", "rope_local_base_freq", "rope_scaling")
"""Entries of config.json that transformers 4 has, and transformers 5 has elsewhere."""
_OF_THE_FILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def merged_model(run: Run, base: Loaded) -> PreTrainedModel:
    """Fold everything learned into the base model's weights, exact in fp32; changes ``base`` and returns its model.

    Raises:
        ConfigError: the learner answers by task id and so is no single model.
        FolderError: the run was made on another base model.
    """
    check_exportable(run)
    if quantised(base):
        raise ConfigError(
            f"{base.name!r} has quantised weights, into which nothing can be folded exactly; export an adapter by "
            f"--rank, or take the folders below {run.path / 'tasks'}"
        )
    labels = run.stages[-1].facts.labels
    if base.family.head:
        base.family.fixed = run.settings.head == "names"  # where nothing was trained, no folder holds them
        row = [Example("", labels[0])]
        base.family.prepare(
            base.model, [Task(name="all", train=row, test=row, labels=tuple(labels))], torch.Generator()
        )
    model = base.model
    # In fp32, for in bf16 most of a small update would be rounded away as it is added.
    model.float()
    weights, modules = dict(model.named_parameters()), dict(model.named_modules())
    with torch.no_grad():
        for name, dense in merged_updates(run).items():
            weight = matrix_of(modules[name]) if f"{name}.weight" in weights else None
            if weight is None or weight.shape != dense.shape:
                raise FolderError(
                    f"{run.path} was learned on another model than {base.name!r}: no {name!r} of that shape"
                )
            weight += dense.to(weight.device)
        for name, tensor in _rest(run).items():
            weights[name].copy_(tensor)
    if base.family.head:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: row for row, label in enumerate(labels)}
    return model.eval()


def quantised(base: Loaded) -> bool:
    """Return whether the base weights are packed, so that no update can be added to them."""
    return base.precision.packing is not None or quantization_of(base.model.config) is not None


def merged_updates(run: Run) -> dict[str, Tensor]:
    """Compute per module what is added to W0, dense, (o, i): the sum of the updates, or what they are merged into."""
    if not run.method.adapter.loads_with_peft:  # whole matrices have changed, and the newest folder holds how
        return {
            name: update.tensors["change"]
            for name, update in load_form(run.stages[-1].path / OsfBackend.file)[0].items()
        }
    past, merge = run.past(), run.method.merge
    if merge is None or merge.infer == "sum" or len(past) < 2:  # one update is its own merge
        return {name: past.total(name) for name in past.sites}
    return {name: merge.merge(delta[name].dense() for delta in past) for name in past.sites}


def check_exportable(run: Run) -> None:
    """Refuse a learner that is no single model, or whose weights are not made of updates.

    Raises:
        ConfigError: which, and where what was learned lies.
    """
    if run.method.adapter.form.startswith("prompt"):
        raise ConfigError(
            f"{run.method.name!r} learns soft prompts, which stand beside a text and in no weight; they are in "
            f"prompts.safetensors, and `everlora.Learner` puts them in ({run.path / 'README.md'} shows how)"
        )
    if run.method.task_id_at_inference:
        raise ConfigError(
            f"{run.method.name!r} keeps one adapter per task; take the folders below {run.path / 'tasks'}"
        )
    if run.method.adapter.whole_model:
        raise ConfigError(f"{run.path} is a whole model already: load it with from_pretrained, or copy its files")
    if not run.method.adapter.adds:
        raise ConfigError(
            f"what {run.method.name!r} adds depends on the input, so there is nothing to fold into a model; what it "
            f"learned lies in {run.path}, and `everlora.Learner` puts it on ({run.path / 'README.md'} shows how)"
        )


def _rest(run: Run) -> dict[str, Tensor]:
    last = run.stages[-1].path
    if (last / OsfBackend.file).is_file():
        return load_form(last / OsfBackend.file)[1]
    return adapters.read(last)[1] if (last / adapters.WEIGHTS).is_file() else {}


def merged_adapter(run: Run, rank: int) -> tuple[LowRankUpdates, dict[str, float]]:
    """Make the learner an adapter of at most ``rank``, and measure what that loses.

    Returns:
        The updates; ``error``, ‖M − M̂‖_F / ‖M‖_F over all modules, and ``worst``, that of the worst module.
    """
    check_exportable(run)
    if not run.method.adapter.loads_with_peft:
        raise ConfigError(f"{run.method.name!r} changes whole matrices, which no adapter holds; leave --rank out")
    past, merge = run.past(), run.method.merge
    if not len(past):
        raise ConfigError(f"{run.method.name!r} trains nothing, so there is no adapter to write; leave --rank out")
    # A merge is dense, so the nearest of low rank needs its SVD; a sum is truncated from its factors, without a dense
    # matrix.
    if merge is not None and merge.infer == "merged":
        updates, _ = adapters.merge_past(past, merge, rank)
    else:
        updates = {name: truncated(past.factors(name), rank)[0] for name in past.sites}
    exact = merged_updates(run)
    lost = {name: float((exact[name] - update.dense()).norm()) for name, update in updates.items()}
    sizes = {name: float(exact[name].norm()) for name in updates}
    total = sum(v**2 for v in sizes.values()) ** 0.5
    error = sum(v**2 for v in lost.values()) ** 0.5 / total if total else 0.0
    return updates, {"error": error, "worst": max(lost[n] / sizes[n] if sizes[n] else 0.0 for n in updates)}


def card_of(run: Run, base: Loaded, rank: int | None = None, error: float | None = None) -> str:
    """Return the card of an export: of the whole model, or of an adapter of ``rank`` with its relative error."""
    results = read_matrix(run.path)
    check_scores(results, [stage.facts.row for stage in run.stages], run.path)
    date = base.family.answering().get("chat_date")
    facts = ExportFacts(
        hub=base.hub,
        head=base.family.head,
        cards={name: prompt for stage in run.stages for name, prompt in stage.facts.cards.items()},
        rank=rank,
        error=error,
        chat_date=str(date) if date else None,
        files=base.files.record() if base.files else None,
    )
    return export_card(results, read_run(run.path), facts)


def write_model(run: Run, base: Loaded, out: Path, dtype: str = "fp32") -> None:
    """Write `merged_model` as a transformers folder, with its card and what turns rows into its input.

    Raises:
        FolderError: it reads back as something else; nothing of it stays.
    """
    model = merged_model(run, base).to(getattr(torch, DTYPES[dtype]))
    with staged(out) as folder, explained(out):
        model.save_pretrained(folder)
        base.family.processor.save_pretrained(str(folder))
        spell_both_ways(folder)
        check_written(model, base.family.processor, folder)
        write_text(folder / CARD, card_of(run, base))


def spell_both_ways(folder: Path) -> None:
    """Add to a written model what transformers 4 calls otherwise, and would replace by defaults without a word."""
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    rope = facts.get("rope_parameters")
    if isinstance(rope, dict):
        full = rope.get("full_attention", rope)
        near = rope.get("sliding_attention")
        if "rope_theta" in full:
            facts.setdefault("rope_theta", full["rope_theta"])
        if isinstance(near, dict) and "rope_theta" in near:
            facts.setdefault("rope_local_base_freq", near["rope_theta"])
        if full.get("rope_type", "default") != "default":
            facts.setdefault("rope_scaling", {key: value for key, value in full.items() if key != "rope_theta"})
        write_json(config, facts)
    if tokenizer.is_file():
        facts = json.loads(tokenizer.read_text(encoding="utf-8"))
        if facts.get("tokenizer_class") == "TokenizersBackend":  # a name that is new in transformers 5
            write_json(tokenizer, {**facts, "tokenizer_class": "PreTrainedTokenizerFast"})


def check_written(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Open a model that was written again, and compare all tensors, the configurations and the vocabulary.

    Raises:
        FolderError: it cannot be loaded, or is another model.
    """
    other = FolderError(f"the model in {folder} reads back as another one than was written; look at the disk")
    try:
        # First: without a config.json transformers would make a model of its defaults, however large that is.
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        config, reader = (type(one).from_pretrained(str(folder)) for one in (model.config, processor))
        words, words_again = (_settings(_words(one)) for one in (processor, reader))
        if kind != model.config.model_type or _settings(config) != _settings(model.config) or words != words_again:
            raise other
        again, found = type(model).from_pretrained(
            str(folder), dtype=model.dtype, use_safetensors=True, output_loading_info=True
        )
    except FolderError:
        raise
    except Exception as error:  # whatever a library makes of a damaged file, the user needs one line
        reason = " ".join(str(error).split())[:600] or type(error).__name__
        raise FolderError(f"the model in {folder} cannot be opened again: {reason}") from error
    here, there = model.state_dict(), again.state_dict()
    for name in model._keys_to_ignore_on_save or ():  # sinusoids, which are made anew in fp32: no file holds them
        here.pop(name, None), there.pop(name, None)
    same = here.keys() == there.keys() and all(torch.equal(tensor.cpu(), there[name]) for name, tensor in here.items())
    answers, answers_again = (_settings(one.generation_config) if one.can_generate() else {} for one in (model, again))
    if found["missing_keys"] or not same or answers != answers_again:
        raise other


def _words(processor: Any) -> Any:
    """Return the vocabulary of a tokenizer, or the settings of what reads pictures."""
    return processor.get_vocab() if isinstance(processor, PreTrainedTokenizerBase) else processor.to_dict()


def _settings(config: Any) -> Any:
    """Return what a configuration says, without where it was read from and what `spell_both_ways` has added."""
    facts = config.to_dict() if isinstance(config, PretrainedConfig | GenerationConfig) else config
    if not isinstance(facts, dict):
        return facts
    return {key: _settings(value) for key, value in facts.items() if key not in (*_OF_TRANSFORMERS_4, *_OF_THE_FILE)}


def write_adapter(run: Run, base: Loaded, updates: LowRankUpdates, error: float, out: Path) -> None:
    """Write updates as a PEFT folder, with the tokenizer or its like, and a card that says the relative ``error``."""
    rank = max(update.rank for update in updates.values())
    with staged(out) as folder, explained(out):
        adapters.write(folder, updates, _rest(run), like=run.stages[-1].path)
        base.family.processor.save_pretrained(str(folder))
        write_text(folder / CARD, card_of(run, base, rank, error))


def check_empty(out: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        FolderError: it is a file, or a folder with content.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FolderError(f"{out} exists and is not empty; choose another --out")


@torch.no_grad()
def compare_logits(
    run: Run, base: Loaded, updates: LowRankUpdates, tasks: Sequence[Task], rows: int = 16
) -> dict[str, float]:
    """Measure how far logits with ``updates`` are from the exact ones on a few rows of every task; changes ``base``.

    Returns:
        ``largest``: the largest absolute difference; ``relative``: root mean square difference by that of the exact
        logits around their mean; ``agree``: share of positions with the same largest logit.
    """
    model = merged_model(run, base)
    batches = [
        {
            key: value.to(model.device)
            for key, value in base.family.collate(
                [base.family.features(row, task) for row in task.test[:rows]]
            ).items()
        }
        for task in tasks
    ]
    exact = [base.family.logits(model, batch)[0].float() for batch in batches]
    exact_updates = merged_updates(run)
    for name, update in updates.items():
        weight = matrix_of(model.get_submodule(name))
        # By the difference: loading the model once more would take as long as all the rest.
        weight.add_((update.dense() - exact_updates[name]).to(weight.device))
    other = [base.family.logits(model, batch)[0].float() for batch in batches]
    difference = torch.cat([(a - b)[a.isfinite()].flatten() for a, b in zip(exact, other, strict=True)])
    spread = torch.cat([(a - a.mean(-1, keepdim=True))[a.isfinite()].flatten() for a in exact])
    same = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(exact, other, strict=True)])
    relative = float(difference.square().mean().sqrt() / spread.square().mean().sqrt())
    return {"largest": float(difference.abs().max()), "relative": relative, "agree": float(same.float().mean())}
