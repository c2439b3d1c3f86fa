"""Records what a base model was read from, so that another base under the same name is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from everlora.archive.records import BaseFilesRecord
from everlora.archive.root import sha256
from everlora.core.errors import FolderError

PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "*.py",  # code of a model's own
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template.*",
    "*preprocessor_config.json",
    "processor_config.json",
)
"""Files of a model folder that make it answer as it does."""
NEXT_TO_GGUF = ("generation_config.json", "chat_template.*")
TENSORS, PROCESSOR = "the tensors of the model", "what makes its input"


@dataclass(frozen=True)
class BaseFiles:
    """Holds the files of a base model, which are hashed only when a run asks for it.

    Attributes:
        files: by name.
        commit: the commit of the hub that they are from.
        tensors, processor: digests of the weights, and of a tokenizer or its like, of a model that no file holds.
    """

    files: Mapping[str, Path]
    commit: str | None = None
    tensors: str | None = None
    processor: str | None = None

    @classmethod
    def at(cls, place: Path, commit: str | None = None) -> BaseFiles:
        """Find the files of a model folder, or a GGUF file and what is read from its folder."""
        folder, patterns = (place, PATTERNS) if place.is_dir() else (place.parent, (place.name, *NEXT_TO_GGUF))
        found = {file.name: file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
        return cls(dict(sorted(found.items())), commit)

    @classmethod
    def of_tensors(cls, state: Mapping[str, Tensor], processor: Any = None) -> BaseFiles:
        """Describe a model that no file holds, by its tensors and what makes its input."""
        digest = hashlib.sha256()
        # By name: a state has the order in which modules were made, which another version may change.
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        fast = isinstance(processor, PreTrainedTokenizerFast)
        reads = processor.backend_tokenizer.to_str() if fast else processor.to_json_string() if processor else None
        return cls(
            {}, tensors=digest.hexdigest(), processor=hashlib.sha256(reads.encode()).hexdigest() if reads else None
        )

    def record(self) -> BaseFilesRecord:
        """Return the digests, for environment.json.

        Raises:
            FolderError: a file cannot be read any more.
        """
        try:
            found = {name: _hash(path, (s := path.stat()).st_mtime_ns, s.st_size) for name, path in self.files.items()}
        except OSError as error:
            raise FolderError(
                f"a file of the base model cannot be read: {error.filename}: {error.strerror}"
            ) from error
        more = {name: digest for name, digest in ((TENSORS, self.tensors), (PROCESSOR, self.processor)) if digest}
        return BaseFilesRecord(digests=found | more, commit=self.commit)


@lru_cache(maxsize=4096)
def _hash(path: Path, modified: int, size: int) -> str:
    """Hash a file once, as long as it is not written again."""
    return sha256(path)


def check_same_base(out: Path, name: str, there: BaseFilesRecord | None, here: BaseFiles | None) -> None:
    """Refuse to put what was learned on a base model of which a file is another than when it was learned.

    Args:
        out: the run folder.
        name: the base model's.
        there: what was recorded; None in folders of an older everlora, which go on.
        here: what is loaded now.

    Raises:
        FolderError: which file it is.
    """
    if there is None or here is None:
        return
    now = here.record()
    # A commit of the hub is one state of all files, of which a cache holds those that somebody fetched.
    same_commit = there.commit is not None and there.commit == now.commit
    names = there.digests.keys() & now.digests.keys() if same_commit else there.digests.keys() | now.digests.keys()
    if PROCESSOR not in there.digests:  # of an older everlora
        names = names - {PROCESSOR}
    changed = sorted(file for file in names if there.digests.get(file) != now.digests.get(file))
    if not changed:
        return
    file = changed[0]
    what = "was not there" if file not in there.digests else "is gone" if file not in now.digests else "is another"
    more = f" (and {len(changed) - 1} more files)" if len(changed) > 1 else ""
    cure = f"pass --revision {there.commit}" if there.commit and not same_commit else "bring back the files of then"
    raise FolderError(
        f"the base model {name!r} is not the one that {out} was learned on: {file} {what}{more}; {cure}, or learn "
        f"anew in another --out"
    )
