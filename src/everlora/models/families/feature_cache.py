"""Holds hidden states of frozen layers in a folder, so that the runs of a sweep compute them once between them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from everlora.core.errors import ConfigError

LIMIT = 4 * 2**30
"""Bytes that a folder may hold."""
LOOK_AGAIN = 64 * 2**20
"""Bytes that one process writes before it looks at what others have written: by so much each may pass the limit."""
OF_LABELS = ("id2label", "label2id", "num_labels", "problem_type", "_name_or_path")
"""Entries of a model's configuration that change when a head grows, and nothing that frozen layers compute."""


@dataclass
class FeatureCache:
    """Holds tensors by key in a folder, a safetensors file each, which several processes may write at once.

    A file stands under its name only when all of it is written, and holds a digest of its key and its tensor. One that
    is damaged counts as absent and is written again. A folder that is full, or cannot be written, is read on.

    Attributes:
        folder: is made when the first tensor is written.
        warn: is told once of each kind of trouble.
        limit: bytes that the folder may hold.
    """

    folder: Path
    warn: Callable[[str], None]
    limit: int = LIMIT
    _room: int | None = field(default=None, init=False)
    _since: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    _damaged: bool = field(default=False, init=False)

    def check_place(self, *others: Path) -> None:
        """Refuse a folder that is one of others.

        Raises:
            ConfigError: it is.
        """
        if self.folder.resolve() in [other.resolve() for other in others]:
            raise ConfigError(
                f"the feature cache {self.folder} is the folder of the run or of the model; name another"
            )

    def get(self, key: str) -> Tensor | None:
        """Return what is held under a key, on the CPU; None where nothing is, or nothing whole."""
        path = self._path(key)
        try:
            content = load(path.read_bytes())
            states = content["states"]
            digest = content["digest"]
            if digest.dtype == torch.uint8 and bytes(digest.flatten().tolist()) == _digest(key, states):
                return states
        except OSError:  # not there, or cannot be read: `put` says why nothing can be written
            return None
        except (SafetensorError, KeyError, ValueError):
            pass
        if not self._damaged:
            self._damaged = True
            self.warn(f"{path} is damaged; what it should hold is computed again")
        return None

    def put(self, key: str, states: Tensor) -> None:
        """Hold a tensor under a key, if there is room for it."""
        if self._closed:
            return
        states = states.detach().cpu().contiguous()
        digest = torch.frombuffer(bytearray(_digest(key, states)), dtype=torch.uint8)
        content = save({"states": states, "digest": digest})
        try:
            if self._left() < len(content):
                self._close(f"holds its limit of {self.limit / 2**30:g} GiB")
                return
            self._write(self._path(key), content)
        except OSError as error:
            self._close(f"cannot be written ({error.strerror or error})")

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file in one step; of two processes that write one key, either may come last."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that no other process has: two may be at the same key.
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._since += len(content)

    def _left(self) -> int:
        """Return how many bytes may still be written."""
        if self._room is None or self._since > LOOK_AGAIN:
            self._room, self._since = self.limit - size(self.folder), 0
        return self._room - self._since

    def _close(self, why: str) -> None:
        self._closed = True
        self.warn(f"the feature cache {self.folder} {why}; no more is written to it, and results are the same")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def size(folder: Path) -> int:
    """Return how many bytes the files of a folder take; 0 where there is none."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # another process has just renamed it
            continue
    return total


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return the weights and buffers of a module, by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _digest(key: str, states: Tensor) -> bytes:
    return hashlib.sha256(f"{key} {states.dtype} {tuple(states.shape)}".encode() + _bytes(states)).digest()


def _bytes(tensor: Tensor) -> bytes:
    """Return a tensor's bytes, of any type."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def digest_of_part(parts: Iterable[tuple[str, Tensor]], config: transformers.PretrainedConfig) -> str:
    """Return a hash of all that frozen layers compute with, but for what they read.

    Args:
        parts: their weights and buffers, by name.
        config: of the model.
    """
    settings = {key: value for key, value in config.to_dict().items() if key not in OF_LABELS}
    versions = [torch.__version__, transformers.__version__]
    found = hashlib.sha256(json.dumps([settings, versions], sort_keys=True, default=str).encode())
    for name, tensor in parts:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def key_of(part: str, inputs: Mapping[str, Tensor]) -> str:
    """Return the key of what frozen layers make of a batch.

    Rows of one batch change the last bits of one another, and so do the number of threads, the device and autocast:
    with all of them in the key, what is read is bit for bit what would have been computed.

    Args:
        part: see `digest_of_part`.
        inputs: all that is read.
    """
    device = next(iter(inputs.values())).device
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {torch.get_num_threads()}"
    cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    found = hashlib.sha256(f"{part} {place} {cast} {torch.get_float32_matmul_precision()}".encode())
    for name, tensor in sorted(inputs.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()
