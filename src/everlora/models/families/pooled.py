"""An encoder that answers from one pooled vector of its last hidden states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

Pooling = Literal["mean", "cls", "head"]
"""What a classification head reads: the ``mean`` over a text's tokens, its first token (``cls``), or what the
checkpoint's own ``head`` makes of them, with its pooler or dense layer."""
DECLARED = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
"""The switches in the ``1_Pooling/config.json`` of sentence-transformers that are known."""


class PooledClassifier(PreTrainedModel):
    """A body and one linear layer on its pooled hidden states; nothing between them is newly initialised.

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
    """

    def __init__(self, body: PreTrainedModel, pooling: Pooling, labels: int) -> None:
        super().__init__(body.config)
        self.base_model_prefix = body.base_model_prefix
        if getattr(body, "pooler", None) is not None:
            body.pooler = None  # nobody reads it; a reader who wants it finds that it is not there
        setattr(self, self.base_model_prefix, body)
        self.pooling = pooling
        self.num_labels = labels
        self.classifier = nn.Linear(body.config.hidden_size, labels, dtype=body.dtype)

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
        return SequenceClassifierOutput(logits=self.classifier(pool(hidden, attention_mask, self.pooling)))


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector (b, h) of each row of hidden states (b, s, h), over the positions of ``mask`` (b, s).

    >>> import torch
    >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]), "mean")
    tensor([[2.]])
    """
    if pooling == "cls":
        return hidden[:, 0]
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def declared(folder: Path) -> Pooling | None:
    """Return how the sentences of a checkpoint of sentence-transformers were pooled in its training, if it says so."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    try:
        switches = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    on = [name for name in switches if name.startswith("pooling_mode_") and switches[name] is True]
    return DECLARED.get(on[0]) if len(on) == 1 else None  # type: ignore[return-value]
