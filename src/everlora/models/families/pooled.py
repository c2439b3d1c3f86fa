"""Defines an encoder that answers from one pooled vector of its last hidden states."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from everlora.core.errors import ModelError
from everlora.models.families.heads import find_head
from everlora.runtime import hub

Pooling = Literal["mean", "cls", "head"]
"""What a classification head reads: the ``mean`` over a text's tokens, its first token (``cls``), or what the
checkpoint's own ``head`` makes of them, with its pooler or dense layer."""
WRITTEN = "everlora_pooling"
"""The entry of config.json in a written `PooledClassifier`."""
POOLING_FILE = "1_Pooling/config.json"
SWITCH = "pooling_mode_"
SWITCHES: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}
"""The ways to pool in this file of sentence-transformers that are known, as switches and as one word."""
SAY = "--pooling says how (mean, cls, head)"


class PooledClassifier(PreTrainedModel):
    """Is a body and one linear layer on its pooled hidden states, with nothing new between them.

    The names inside are those of the body's own model with a head, so that an adapter fits both.

    >>> import torch, everlora
    >>> base = everlora.load("tiny-bert", pooling="mean")
    >>> ids = torch.tensor([[3, 4, 5]])
    >>> hidden = base.model.base_model(input_ids=ids).last_hidden_state
    >>> logits = base.model.classifier(hidden.mean(1))
    >>> torch.allclose(base.model(input_ids=ids).logits, logits)
    True

    Attributes:
        pooling: ``mean`` or ``cls``.
        answers_by: name of the module that holds the linear layer, under the path that it has in the body's own model
            with a head (``classifier.out_proj`` of RoBERTa).
    """

    # The body's attention has been chosen, with the body's own reasons.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, body: PreTrainedModel, pooling: Pooling, labels: int, head: str = "classifier") -> None:
        super().__init__(body.config)
        self.base_model_prefix = body.base_model_prefix
        self.supports_gradient_checkpointing = body.supports_gradient_checkpointing
        if getattr(body, "pooler", None) is not None:
            body.pooler = None  # nobody reads it; a reader who wants it finds that it is not there
        setattr(self, self.base_model_prefix, body)
        self.pooling = self.config.everlora_pooling = pooling
        self.num_labels = labels
        self.answers_by, _, inner = head.partition(".")
        layer: nn.Module = nn.Linear(body.config.hidden_size, labels, dtype=body.dtype)
        for name in reversed(inner.split(".") if inner else ()):
            layer = nn.Sequential(OrderedDict({name: layer}))
        setattr(self, self.answers_by, layer)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits (b, labels) of texts (b, s)."""
        inputs = {key: value for key, value in inputs.items() if key in ("token_type_ids", "position_ids")}
        hidden = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **inputs
        ).last_hidden_state
        if attention_mask is None:
            attention_mask = hidden.new_ones(hidden.shape[:2])
        head = getattr(self, self.answers_by)
        return SequenceClassifierOutput(logits=head(pool(hidden, attention_mask, self.pooling)))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read the folder that `save_pretrained` wrote."""
        where, with_report = str(pretrained_model_name_or_path), kwargs.pop("output_loading_info", False)
        with quiet():  # the layers that are not read were not written
            model, found = AutoModelForSequenceClassification.from_pretrained(
                where, *args, output_loading_info=True, **kwargs
            )
        pooled, _, _ = with_pooling(where, where, "encoder", model, (), model.config.everlora_pooling, None)
        found["missing_keys"] = {key for key in found["missing_keys"] if key in pooled.state_dict()}
        return (pooled, found) if with_report else pooled


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector (b, h) of each row of hidden states (b, s, h), over the positions of ``mask`` (b, s).

    >>> import torch
    >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]), "mean")
    tensor([[2.]])
    """
    if pooling == "cls":
        return hidden[:, 0]
    # Padding is left out, so that a text has one vector in every batch.
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def with_pooling(
    name: str,
    where: str,
    family: str,
    model: PreTrainedModel,
    fresh: Sequence[str],
    wanted: Pooling | None,
    revision: str | None,
) -> tuple[PreTrainedModel, Pooling | None, Sequence[str]]:
    """Return an encoder that pools as it is wanted to, how it pools, and what was newly initialised in it.

    A model of another family is returned as it is.

    Where nothing is wanted it pools as its checkpoint was trained to: as config.json says, if it is a written
    `PooledClassifier`; as ``1_Pooling`` of sentence-transformers says; by its own head, if the checkpoint has all of
    it but the last layer; else by the mean.

    Args:
        name: of the model, for messages.
        where: folder or hub id; empty where the model was made from nothing.
        family: name of the model's family.
        model: a transformers model, with a classification head if it is an encoder.
        fresh: tensors before its last layer that the checkpoint has no weights for.
        wanted: what the user asks for; None leaves it to the checkpoint.
        revision: of a hub model.

    Raises:
        ModelError: the model is no encoder, or has no body whose hidden states could be pooled.
    """
    if family != "encoder":
        if wanted is not None:
            raise ModelError(f"{name!r} is of the family {family}, and only encoders pool; leave out --pooling")
        return model, None, fresh
    written: Pooling | None = model.config.to_dict().get(WRITTEN)
    if written is not None and written not in get_args(Pooling):
        known = ", ".join(get_args(Pooling))
        raise ModelError(f"{name!r}: {WRITTEN} in its config.json is {written!r}, and texts are pooled by {known}")
    pooling = wanted or written or _declared(where, revision) or ("mean" if fresh else "head")
    if pooling == "head":
        return model, pooling, fresh
    body, width = model.base_model, getattr(model.config, "hidden_size", None)
    if body is model or width is None:
        raise ModelError(f"{name!r} has no hidden states to pool; leave out --pooling")
    head = find_head(model)
    if head is None:
        raise ModelError(f"{name!r} has no linear layer with a row per label; choose a model like BERT")
    pooled, trained = PooledClassifier(body, pooling, model.config.num_labels, head), model.get_submodule(head)
    # A head that was trained on the same width goes on; it is not drawn anew.
    if isinstance(trained, nn.Linear) and trained.in_features == width and trained.bias is not None:
        pooled.get_submodule(head).load_state_dict(trained.state_dict())
    return pooled.to(model.device).eval(), pooling, ()


def _declared(where: str, revision: str | None) -> Pooling | None:
    """Return how the texts of a checkpoint of sentence-transformers were pooled in its training, if it says so."""
    if not where:
        return None
    log, at = logging.getLogger("everlora"), f"{where}: {POOLING_FILE}"
    try:
        path = Path(where) / POOLING_FILE if Path(where).exists() else _fetched(where, revision)
        if path is None or not path.is_file():
            return None
        switches = json.loads(path.read_text(encoding="utf-8-sig"))
        on = _switched_on(switches)
    except (OSError, ValueError, RecursionError):
        log.warning("%s cannot be read, so that nobody knows how its texts were pooled; %s", at, SAY)
        return None
    # Several at once are concatenated there, for which no head here has the width.
    if len(on) == 1 and on[0] in SWITCHES:
        return SWITCHES[on[0]]
    if on:
        log.warning("%s pools by %s, which is not known here; %s", at, " and ".join(on), SAY)
    return None


def _switched_on(switches: Any) -> list[str]:
    """Return the ways to pool that a file names, without what their switches begin with.

    Raises:
        ValueError: it is no mapping, or a switch is neither on nor off.
    """
    if not isinstance(switches, dict):
        raise ValueError("no mapping")
    if (named := switches.get("pooling_mode")) is not None:
        return str(named).split("+")
    found = {key.removeprefix(SWITCH): value for key, value in switches.items() if key.startswith(SWITCH)}
    if strange := [value for value in found.values() if value not in (True, False, None)]:
        raise ValueError(f"a switch is {strange[0]!r}")
    return [way for way, value in found.items() if value]


def _fetched(where: str, revision: str | None) -> Path | None:
    """Return where the file lies of a checkpoint that was just fetched from the hub, if it has one."""
    path = cached_file(
        where,
        POOLING_FILE,
        revision=revision,
        local_files_only=hub.unreachable() is not None,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report on missing and surplus tensors: missing ones are checked here."""
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(before)
