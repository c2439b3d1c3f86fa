"""Loads a base model by name, with its processor and its family, through transformers' own loading code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from everlora.archive.root import check_root
from everlora.core.errors import EverloraError, ModelError
from everlora.data.template import DEFAULT, IN_CHAT, Template
from everlora.models import gguf_cache, tiny
from everlora.models.architectures import FAMILIES, FamilyName, family_of
from everlora.models.base_files import BaseFiles
from everlora.models.families import Classifier, Family, Limits, Seq2Seq, TextClassifier, Writer
from everlora.models.families.heads import find_head, modules_of_head
from everlora.models.families.pooled import Pooling, quiet, with_pooling
from everlora.models.folder import check_depth, check_folder
from everlora.models.names import PACKAGED, canonical, check_there
from everlora.models.packing import pack, possible
from everlora.models.tokenizer import check_tokenizer, context_of, decoder_start, end_tokens
from everlora.models.weights import check_quantization
from everlora.runtime import hub
from everlora.runtime.precision import Precision, attention_in_fp32, choose
from everlora.runtime.seeds import seeded

modeling_gguf_pytorch_utils.tqdm = hf_logging.tqdm  # this bar alone does not heed disable_progress_bar()

_POOLER = re.compile(r"\bpooler\b")
"""Tensors of a body that may be missing in a checkpoint, since they stand between it and its labels."""


@dataclass
class Loaded:
    """Holds a base model that is ready to be adapted.

    Attributes:
        model: the transformers model, frozen, in eval mode.
        family: how it reads examples and answers.
        name: the name that it was loaded by.
        hub: its hub id, if it has one: where it was loaded from, or what packaged weights were made from; written as
            ``base_model_name_or_path``.
        precision: data type and device of its weights.
        fresh: tensors before the head that the checkpoint has no weights for; they are drawn from a fixed seed.
        files: what it was read from; None where that is not known.
    """

    model: PreTrainedModel
    family: Family
    name: str
    hub: str | None
    precision: Precision
    fresh: Sequence[str] = ()
    files: BaseFiles | None = None


def load(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    max_source_length: int | None = None,
    max_new_tokens: int | None = None,
    prompt: str | None = None,
    prompt_style: Literal["chat", "plain", "auto"] = "plain",
    trust_remote_code: bool = False,
    labels: Sequence[str] = (),
    pooling: Pooling | None = None,
) -> Loaded:
    """Load a base model by packaged name, ``tiny-*``, folder, GGUF file or hub id.

    >>> base = load("tiny-llama")
    >>> base.family.name, base.precision.describe()["weights"]
    ('decoder', 'float32')
    >>> load("tiny-bert", labels=["ham", "spam"]).model.classifier.out_features
    2

    Args:
        name: what to load.
        revision: a revision on the hub.
        dtype: ``float32``, ``bfloat16``, ``auto``, or linear layers packed as ``int8`` or ``nf4``.
        device: a device of torch, or ``auto``.
        max_source_length: longest prompt in tokens; longer texts are cut.
        max_new_tokens: longest answer where there is no label set; by default 50, or as long as the targets ask.
        prompt: a prompt template of one's own.
        prompt_style: whether rows are put as a user's message through the model's chat template (``chat``), as they
            are (``plain``), or through a chat template where there is one (``auto``).
        trust_remote_code: whether code that comes with the model may run.
        labels: names of the rows of a classification head, so that a trained adapter, which includes its head, fits.
        pooling: what an encoder's head reads; None for what the checkpoint was trained for.

    Raises:
        ModelError: unknown name, folder without weights, unreachable hub, unsupported architecture or device.
    """
    check_there(name)
    key = canonical(name).lower()
    packaged, precision = PACKAGED.get(key), possible(choose(dtype, device, tiny=key.startswith("tiny-")))
    where, new = "", list[str]()
    if key.startswith("tiny-"):
        model, processor, family = tiny.build(key, precision.weights)
    else:
        where = str(packaged.path() if packaged else name)
        model, processor, family, new = _from_files(name, where, revision, precision, trust_remote_code)
    files = _files(where, revision, model, processor)
    model, how, fresh = with_pooling(name, where, family, model, new, pooling, revision)
    attention_in_fp32(model, precision)
    # Frozen as a whole: only what a backend adds, or makes trainable again, is trained.
    model = model.to(precision.device).eval().requires_grad_(False)
    put = _putting(name, processor, family, prompt_style, prompt)
    limits = _limits(context_of(name, model, processor), max_source_length, max_new_tokens, put)
    reader = _reader(name, family, model, processor, limits, fresh, how)
    pack(model, precision, reader.saved_modules)
    _name_labels(name, model, reader, labels)
    hub_id = packaged.hub if packaged else None if key.startswith("tiny-") or Path(name).exists() else name
    return Loaded(model, reader, name, hub_id, precision, fresh, files)


def _reader(
    name: str,
    family: FamilyName,
    model: PreTrainedModel,
    processor: Any,
    limits: Limits,
    fresh: Sequence[str],
    pooling: Pooling | None,
) -> Family:
    """Return the family of a model; one that writes knows where its answers begin and end, a classifier its head.

    Raises:
        ModelError: the tokenizer cannot be used with the model, or there is no head to answer with.
    """
    if family != "image-classifier":
        check_tokenizer(name, model, processor, writes=family in ("decoder", "encoder-decoder"))
    reader = FAMILIES[family][1](processor, limits)
    if isinstance(reader, Classifier):
        reader.head = find_head(model)
        if reader.head is None:
            raise ModelError(f"{name!r} has no linear layer with a row per label; choose a model like BERT or ViT")
        reader.saved_modules = modules_of_head(model, reader.head, fresh)
    if isinstance(reader, TextClassifier):
        reader.pooling = pooling
    if isinstance(reader, Writer):
        reader.ends = end_tokens(model, reader.processor)
    if isinstance(reader, Seq2Seq):
        reader.start = decoder_start(model, reader.pad)
    return reader


class Putting(TypedDict):
    """Holds how prompts are put to a model."""

    template: Template
    chat: bool


def _putting(
    name: str, processor: Any, family: FamilyName, style: Literal["chat", "plain", "auto"], prompt: str | None
) -> Putting:
    """Return the template of prompts, and whether they go through the model's chat template.

    Raises:
        ModelError: they are to, and there is none.
    """
    has = family == "decoder" and bool(getattr(processor, "chat_template", None))
    if style == "chat" and not has:
        raise ModelError(f"{name!r} has no chat template to put prompts through; pass --prompt-style plain")
    chat = has and style != "plain"
    return {"template": Template(prompt if prompt is not None else IN_CHAT if chat else DEFAULT), "chat": chat}


def _limits(context: int, source: int | None, answer: int | None, put: Putting) -> Limits:
    """Return lengths and template; an answer whose length nobody names may follow the targets."""
    return Limits(context=context, source=source, answer=answer or 50, follow_targets=answer is None, **put)


def _name_labels(name: str, model: PreTrainedModel, reader: Family, labels: Sequence[str]) -> None:
    """Give the head one row per label, if labels are named.

    Raises:
        ModelError: the model has no head.
    """
    if not labels:
        return
    if not isinstance(reader, Classifier):
        raise ModelError(f"{name!r} answers in text and has no head; leave labels out")
    reader.labels = list(labels)
    # The numbers drawn for the rows play no part: a trained adapter brings their values.
    reader.resize(model, torch.Generator())


def _from_files(
    name: str, where: str, revision: str | None, precision: Precision, trust: bool
) -> tuple[Any, Any, FamilyName, list[str]]:
    """Load model and processor from a folder, a GGUF file or the hub; tell the family, and what was drawn anew.

    Raises:
        ModelError: nothing is there, it cannot be loaded, or it is of an unsupported architecture.
    """
    extra: dict[str, Any]
    unpack: dict[str, Any]
    path, extra, unpack, why = Path(where), {}, {}, None
    unpacked = gguf_cache.Unpacked.of(path, precision.weights)
    if unpacked.is_whole():
        where = str(unpacked.folder)
    elif path.suffix == ".gguf":
        where, extra = str(path.parent), {"gguf_file": path.name}
        unpack = {"quantization_config": GgufConfig(dequantize=True)}  # packed weights cannot be trained on
    elif path.is_dir():
        check_folder(path)
        check_root(path)
    else:
        why = hub.unreachable()
        extra = {"local_files_only": True} if why else {}  # what an earlier run fetched will do
    try:
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=trust, **extra)
        family = family_of(config)
        check_quantization(name, config, precision.device)
        check_depth(name, config.to_dict())
        auto, _ = FAMILIES[family]
        read = AutoImageProcessor if family == "image-classifier" else AutoTokenizer
        processor = read.from_pretrained(where, revision=revision, trust_remote_code=trust, **extra)
        with seeded(0), quiet():  # a head that is not in the checkpoint gets the same random values every time
            model, found = auto.from_pretrained(
                where,
                revision=revision,
                trust_remote_code=trust,
                dtype=precision.weights,
                use_safetensors=True,  # never a pickle
                ignore_mismatched_sizes=True,  # judged below
                output_loading_info=True,
                **extra,
                **unpack,
            )
    except EverloraError:
        raise
    except Exception as error:  # whatever a library makes of a damaged file, the user needs one line
        cure = f"give a folder, a GGUF file, a reachable hub id or one of: {', '.join((*PACKAGED, *tiny.BUILDERS))}"
        reason = why or " ".join(str(error).split())[:600] or type(error).__name__
        raise ModelError(f"cannot load the model {name!r}: {reason} ({cure})") from error
    if getattr(model, "_hf_peft_config_loaded", False):  # found on the hub; in a folder it was refused before
        raise ModelError(
            f"{name!r} has an adapter among its files, which transformers put on by itself; merge it first"
        )
    new = _check_weights(name, model, family, found)
    unpacked.finish(model, processor)
    return model, processor, family, new


def _files(where: str, revision: str | None, model: PreTrainedModel, processor: Any) -> BaseFiles:
    """Find the files that a model was read from, in a folder or in the cache of the hub, or look at its tensors."""
    if not where:  # built in memory
        return BaseFiles.of_tensors(model.state_dict(), processor)
    if Path(where).exists():
        return BaseFiles.at(Path(where))
    try:
        place = cached_file(where, "config.json", revision=revision, local_files_only=True)
    except OSError:  # a cache that holds nothing
        return BaseFiles.of_tensors(model.state_dict(), processor)
    folder = Path(place).parent  # …/snapshots/<commit>
    return BaseFiles.at(folder, folder.name)


def _check_weights(name: str, model: Any, family: FamilyName, found: Mapping[str, Collection[Any]]) -> list[str]:
    """Refuse a model whose weights do not fit its configuration; return the tensors before its head that are new.

    Raises:
        ModelError: tensors are missing or of another shape.
    """
    new = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    classifies, prefix = issubclass(FAMILIES[family][1], Classifier), model.base_model_prefix
    body = f"{prefix}." if classifies and hasattr(model, prefix) else ""  # where there is none, nothing is outside it
    head = find_head(model) if classifies else None
    # A head that the checkpoint lacks is what is going to be learned.
    new = [key for key in new if key.rpartition(".")[0] != head]
    strange = [key for key in new if key.startswith(body) and not _POOLER.search(key)]
    if strange:
        raise ModelError(
            f"the weights of {name!r} do not fit its config.json: {len(strange)} tensors of a "
            f"{model.config.model_type!r} model are absent or of another shape, such as {strange[0]!r}; "
            f"copy or download the model again"
        )
    return new
