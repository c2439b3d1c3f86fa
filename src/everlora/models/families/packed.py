"""Runs rows as one sequence without padding, and what all of them begin with once.

In a decoder the hidden states of a prompt's beginning depend on nothing that follows. Rows of one task begin with the
same instruction and options, so that these pass through the model as one row, and every row goes on from their keys
and values. All that a decoder does is done token by token, but for attention. So the rows of a batch stand one behind
the other in one sequence, and attention alone takes them apart again: each row sees the tokens that all share, if any,
and its own. Values and gradients are those of padded rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from everlora.models.families.heads import unwrap_model

ARCHITECTURES = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "phi", "phi3"),
        *("gpt_neox", "olmo", "olmo2", "cohere", "glm", "granite", "helium", "nemotron", "persimmon", "smollm3"),
        *("stablelm", "starcoder2", "gpt2", "gpt_bigcode", "gptj", "codegen", "opt"),
    }
)
"""Decoders whose layers see all that stands before a token, so that positions and a mask say everything; the tests
hold each of them against rows that share nothing."""
BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotated positions that differ with the length of what passes."""
SAVED = 128
"""Tokens that must be saved for a pass of their own to pay."""
PACKED = "packed_rows"
"""The attention that `packed` sets; transformers finds it under this name."""


@dataclass(frozen=True)
class Packing:
    """Says where the tokens of each row stand in a packed sequence.

    Attributes:
        shared: tokens before the packed ones, which every row sees.
        places: numbers of the tokens of each row, (b, r), 0 where a row has ended.
        real: which of them are tokens, (b, r).
        visible: which of the shared tokens and of its own each token of a row sees, (b, 1, r, shared + r).
    """

    shared: int
    places: Tensor
    real: Tensor
    visible: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], shared: int) -> Packing:
        """Lay out rows of so many tokens one behind the other.

        >>> Packing.of([2, 1], shared=1).places
        tensor([[0, 1],
                [2, 0]])
        >>> Packing.of([2, 1], shared=1).visible[0, 0].int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
        """
        size = torch.tensor(list(lengths))[:, None]
        column = torch.arange(int(size.max()))
        real = column < size
        places = (size.cumsum(0) - size + column).where(real, 0)
        causal = column[None, :] <= column[:, None]
        before = torch.ones(len(column), shared, dtype=torch.bool)
        # What has ended sees the first tokens: a row of the mask that hides everything is no attention at all.
        visible = torch.cat([before, causal], dim=1).expand(len(size), 1, -1, -1)
        return cls(shared, places, real, visible)

    def take(self, packed: Tensor) -> Tensor:
        """Return the rows of a packed tensor (1, heads, tokens, d) as a padded one, (b, heads, r, d)."""
        return packed[0][:, self.places].transpose(0, 1)

    def with_shared(self, packed: Tensor) -> Tensor:
        """Return what each row sees, (b, heads, shared + r, d), of keys or values (1, heads, shared + tokens, d)."""
        before = packed[:, :, : self.shared].expand(len(self.places), -1, -1, -1)
        return torch.cat([before, self.take(packed[:, :, self.shared :])], dim=2)


_now: ContextVar[Packing | None] = ContextVar("packing", default=None)


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any) -> Any:
    """Compute attention row by row of a packed sequence, in fp32 on a CPU."""
    packing = _now.get()
    assert packing is not None
    parts = packing.take(query), packing.with_shared(key), packing.with_shared(value)
    if query.device.type == "cpu":  # where the backward pass of attention in bf16 is six times slower
        q, k, v = (part.float() for part in parts)
    else:
        q, k, v = parts
    out, weights = sdpa_attention_forward(module, q, k, v, packing.visible, **how)  # (b, r, heads, d)
    return out[packing.real][None].to(query.dtype), weights


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, lambda *args, **kwargs: None)


@contextmanager
def packed(model: nn.Module, packing: Packing) -> Iterator[None]:
    """Let a model take its input for packed rows, for as long as the block runs."""
    bare: Any = unwrap_model(model)
    before, token = bare.config._attn_implementation, _now.set(packing)
    bare.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        _now.reset(token)
        bare.set_attn_implementation(before)


def can_share(model: nn.Module) -> bool:
    """Return whether rows of a model may share what they begin with; see `ARCHITECTURES`."""
    config = unwrap_model(model).config.to_dict()
    windows = config.get("sliding_window") and config.get("use_sliding_window", True)
    # Frequencies that depend on the longest position of a pass are others where a part of a prompt is read by itself.
    turns = json.dumps(config.get("rope_parameters") or config.get("rope_scaling"), default=str)
    return config["model_type"] in ARCHITECTURES and not windows and not any(kind in turns for kind in BY_LENGTH)


def can_pack(model: nn.Module) -> bool:
    """Return whether a model takes its attention from where `packed` puts it."""
    bare: Any = unwrap_model(model)
    return bool(bare._supports_attention_backend) and "sdpa" in str(bare.config._attn_implementation)


def can_pack_in_training(model: nn.Module) -> bool:
    """Return whether rows that are learned may be packed, value and gradient unchanged.

    Not where dropout is on, which differs from row to row, and not where layers are computed again for the backward
    pass, which keeps no keys and values.
    """
    bare = unwrap_model(model)
    # Some models drop by a function, with the share that stands in their settings.
    set_ = (v for k, v in bare.config.to_dict().items() if ("drop" in k or "jitter" in k) and isinstance(v, float))
    random = any(set_) or any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    checkpoints = any(vars(module).get("gradient_checkpointing") for module in bare.modules())
    return can_share(model) and can_pack(model) and not random and not checkpoints


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Return the tokens that all rows begin with, leaving one of each row at least.

    >>> shared_length([[1, 2, 3], [1, 2, 4]]), shared_length([[1, 2], [1, 2, 4]]), shared_length([[5]])
    (2, 1, 0)
    """
    shortest = min(map(len, rows))
    columns = enumerate(zip(*rows, strict=False))
    return max(0, min(next((k for k, column in columns if len(set(column)) > 1), shortest), shortest - 1))


def worth_packing(ids: Tensor, mask: Tensor, where: Tensor) -> int | None:
    """Return how many first tokens the rows of a batch share where packing them pays; None where it does not.

    Args:
        ids: tokens (b, s), padded on the left.
        mask: which of them are no padding, (b, s).
        where: positions with a loss, (b, s), none of which is shared.
    """
    if len(ids) < 2 or ids.device.type != "cpu":  # elsewhere looking at tokens would wait for the device
        return None
    rows = [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]
    first = (where.int().argmax(1) - (mask == 0).sum(1)).min()
    shared = min(shared_length(rows), int(first))
    if (len(rows) - 1) * shared < SAVED:
        shared = 0  # a pass of their own would not pay
    fed = shared + sum(len(row) - shared for row in rows)
    return shared if mask.numel() - fed >= SAVED else None


def read_prefix(model: nn.Module, tokens: Sequence[int]) -> DynamicCache | None:
    """Run a model on what all rows begin with, and return its keys and values, of one row; None for no token."""
    if not tokens:
        return None
    ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    cache = DynamicCache(config=unwrap_model(model).config)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def repeated(cache: DynamicCache | None, rows: int) -> DynamicCache | None:
    """Return the keys and values of one row for so many rows."""
    if cache is not None:
        cache.batch_repeat_interleave(rows)
    return cache
