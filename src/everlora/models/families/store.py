"""Holds what is costly to make of texts, within a limit of bytes: hidden states, and tokens."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

TOKENS = 2**26
"""Bytes of tokens that are held: 16 million tokens."""


class Sized(Protocol):
    """Is whatever says how many bytes it takes, as tensors and arrays do."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


@dataclass
class Store(Generic[T]):
    """Holds tensors or arrays by key, within a limit; those that were used longest ago are dropped first.

    >>> import torch
    >>> store = Store(limit=8)
    >>> for key in (b"a", b"b", b"c"):
    ...     store.put(key, torch.zeros(1))
    >>> store.get(b"a"), store.size
    (None, 8)
    """

    limit: int
    held: OrderedDict[bytes, T] = field(default_factory=OrderedDict)
    size: int = 0

    def get(self, key: bytes) -> T | None:
        """Return what is held under a key; None where nothing is."""
        if key in self.held:
            self.held.move_to_end(key)
        return self.held.get(key)

    def put(self, key: bytes, value: T) -> None:
        """Hold a value, and drop others until the limit is kept."""
        if key not in self.held:
            self.held[key] = value
            self.size += value.nbytes
        while self.size > self.limit:
            self.size -= self.held.popitem(last=False)[1].nbytes


class TokenStore:
    """Tokenises each text once: it is checked, sorted by length, learned and answered after every task.

    Copies of a model share it, since its tokenizer is the same in all of them.

    >>> from everlora import load
    >>> tokenizer, store = load("tiny-llama").family.processor, TokenStore()
    >>> store.tokens(tokenizer, "fine film", special=False) == tokenizer("fine film").input_ids
    True
    """

    def __init__(self, limit: int = TOKENS) -> None:
        self._held: Store[NDArray[np.int32]] = Store(limit)

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenStore:
        return self

    def tokens(
        self, tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool, length: int | None = None
    ) -> list[int]:
        """Return the tokens of a text.

        Args:
            tokenizer: always the same one.
            text: a piece of text.
            special: whether with special tokens.
            length: where the tokenizer is to cut; None for nowhere.
        """
        # By hash, so that texts of streams that are no longer used are not held.
        key = blake2b(f"{special} {length} ".encode() + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        held = self._held.get(key)
        if held is None:
            cut = {"truncation": False} if length is None else {"truncation": True, "max_length": length}
            found = tokenizer(text, add_special_tokens=special, verbose=False, **cut).input_ids
            held = np.asarray(found, dtype=np.int32)
            self._held.put(key, held)
        found_ids: list[int] = held.tolist()
        return found_ids
