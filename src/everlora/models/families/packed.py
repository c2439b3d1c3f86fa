"""Runs rows as one sequence without padding, and what all of them begin with once.

In a decoder the hidden states of a prompt's beginning depend on nothing that follows, and rows of one task begin with
the same instruction and options. All that a decoder does is done token by token, but for attention. So these first
tokens and the rest of each row stand one behind the other in one sequence, and attention alone takes them apart again:
each row sees the tokens that all share, if any, and its own. Values and gradients are those of padded rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
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
"""Tokens that packing must save to pay."""
PACKED = "packed_rows"
"""The attention that `packed` sets; transformers finds it under this name."""


@dataclass(frozen=True)
class Packing:
    """Says where the rows of a batch stand in a packed sequence: what they share first, then the rest of each.

    Attributes:
        shared: tokens that every row begins with.
        lengths: further tokens of each row.
        visible: which of the shared tokens and of its own each token of a row sees, (r, shared + r) for rows of r.
    """

    shared: int
    lengths: tuple[int, ...]
    visible: Mapping[int, Tensor]

    @classmethod
    def of(cls, lengths: Sequence[int], shared: int, ends: Tensor | None = None) -> Packing:
        """Lay out rows of so many further tokens one behind the other.

        >>> Packing.of([2, 1], shared=1).visible[2].int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)

        Args:
            lengths: further tokens of each row.
            shared: tokens that every row begins with.
            ends: which of each other the last tokens of every row see, (n, n); None if all that stand before them.
        """
        seen = {size: torch.ones(size, shared + size, dtype=torch.bool).tril(shared) for size in set(lengths)}
        if ends is not None and len(ends):
            for size, visible in seen.items():
                visible[size - len(ends) :, shared + size - len(ends) :] = ends
        return cls(shared, tuple(lengths), seen)

    def key(self) -> bytes:
        """Return what tells this layout from every other, as a hash."""
        found = blake2b(repr((self.shared, self.lengths)).encode(), digest_size=16)
        for size in sorted(self.visible):
            found.update(self.visible[size].numpy().tobytes())
        return found.digest()

    def rows(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Take a packed tensor (1, heads, tokens, d) apart: what all rows share, and the rest of each."""
        return torch.split(packed, [self.shared, *self.lengths], dim=2)


_now: ContextVar[Packing | None] = ContextVar("packing", default=None)


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any) -> Any:
    """Compute attention row by row of a packed sequence, in fp32 on a CPU."""
    packing = _now.get()
    assert packing is not None
    parts = query, key, value
    if query.device.type == "cpu":  # where the backward pass of attention in bf16 is six times slower
        parts = query.float(), key.float(), value.float()
    (first, *queries), (first_key, *keys), (first_value, *values) = map(packing.rows, parts)
    outs = []
    if packing.shared:
        outs.append(sdpa_attention_forward(module, first, first_key, first_value, None, **how)[0])
    for q, k, v in zip(queries, keys, values, strict=True):
        k, v = torch.cat([first_key, k], dim=2), torch.cat([first_value, v], dim=2)
        visible = packing.visible[q.shape[2]][None, None]  # transformers takes masks of four dimensions apart
        outs.append(sdpa_attention_forward(module, q, k, v, visible, **how)[0])
    return torch.cat(outs, dim=1).to(query.dtype), None  # (1, tokens, heads, d)


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


def layout() -> bytes:
    """Return the key of the rows for which a model takes its input now; nothing outside `packed`."""
    packing = _now.get()
    return b"" if packing is None else packing.key()


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
    pass, when `packed` has ended.
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
    shared = max(0, min(shared_length(rows), int(first)))  # a row without a loss has no first position
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
