"""Unpacks a GGUF file once: later runs find its weights and tokenizer as a folder that is read forty times as fast.

The folder is named by a digest of the file, of what is read with it, of the data type and of the library that unpacked
it; each of its files is held against a digest when it is read, and one that is not whole is made again. Where nothing
can be written the file is unpacked every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from everlora.archive.root import sha256
from everlora.models.base_files import BaseFiles

PLACE = "EVERLORA_CACHE"
"""Environment variable that names the folder of caches; empty for none."""
DIGESTS = "digests.json"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files without which the folder is not whole."""
UNPACKING = "unpacking-"
"""How names of folders begin that are being written."""
LEFT = 24 * 3600
"""Seconds after which nobody is unpacking into a folder any more."""


@dataclass
class Unpacked:
    """Is where a GGUF file is unpacked, or will be.

    Attributes:
        file: the GGUF file.
        folder: is None for what is no GGUF file, and where caches are switched off.
        was_read: whether this process has read the folder, and not the file.
    """

    file: Path
    folder: Path | None
    was_read: bool = False

    @classmethod
    def of(cls, file: Path, dtype: torch.dtype) -> Unpacked:
        """Find the folder of a GGUF file, whose weights are wanted in a data type; nothing is written yet."""
        place = os.environ.get(PLACE)
        if file.suffix != ".gguf" or not file.is_file() or place == "":
            return cls(file, None)
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            libraries = [version("transformers"), version("gguf")]
        except (RuntimeError, PackageNotFoundError):  # nobody's home; or loading will say what is not installed
            return cls(file, None)
        facts = {"files": BaseFiles.at(file).record().digests, "dtype": str(dtype), "libraries": libraries}
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return cls(file, (Path(place) if place else Path(home) / "everlora") / "gguf" / name)

    def is_whole(self) -> bool:
        """Return whether the folder is there and every file of it as it was written; if so it will be read."""
        self.was_read = self.folder is not None and _is_whole(self.folder)
        return self.was_read

    def finish(self, model: Any, processor: Any) -> None:
        """Write what was unpacked, unless it was read; from then on it is known by the name of the GGUF file's folder.

        The folder stands under its name only when all of it is written.
        """
        if self.folder is None:
            return
        if self.was_read:  # a model is where its file is, however it was read
            model.config._name_or_path = model.name_or_path = processor.name_or_path = str(self.file.parent)
            return
        scratch = ""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.folder.parent)
            scratch = tempfile.mkdtemp(prefix=UNPACKING, dir=self.folder.parent)
            model.save_pretrained(scratch, max_shard_size="1TB")  # one file, whatever its size
            processor.save_pretrained(scratch)
            digests = {file.name: sha256(file) for file in sorted(Path(scratch).iterdir())}
            (Path(scratch) / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
            # Another process may have been faster, and a third one may be reading what it wrote.
            if not _is_whole(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                Path(scratch).rename(self.folder)
                return
        except Exception:  # no room, no right, a configuration that cannot be written: this run needs no cache
            pass
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove what processes have left that ended while they were unpacking; those of today may still be at it."""
    for left in place.glob(f"{UNPACKING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT:
                shutil.rmtree(left, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Return whether every file of an unpacked folder is as it was written."""
    try:
        known = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return set(NEEDED) <= known.keys() and all(sha256(folder / name) == one for name, one in known.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False
