"""Writes a safetensors file tensor by tensor, so that no more than one of them need be in memory.

The library's own writer takes all tensors at once; the sum of a learner's updates grows with every task, and would be
held several times over. The file is the same, byte for byte (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

TYPES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Names of types in the format, in the order in which they stand in a file."""
ALIGNED = 8
"""Bytes, of which the header's length is a multiple."""


class MadeTensors(Mapping[str, Tensor]):
    """Holds how tensors are made; each is made anew whenever it is asked for.

    >>> made = MadeTensors({"ones": lambda: torch.ones(2)})
    >>> list(made), made["ones"]
    (['ones'], tensor([1., 1.]))
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def save_file(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors to a file; each is asked for twice, for its shape and when its turn comes.

    Raises:
        OSError: it cannot be written.
    """
    kinds = {name: (one.dtype, list(one.shape), one.nbytes) for name, one in tensors.items()}
    order = sorted(kinds, key=lambda name: (list(TYPES).index(kinds[name][0]), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        dtype, shape, size = kinds[name]
        header[name] = {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            out.write(flat.view(torch.uint8).numpy().data)
