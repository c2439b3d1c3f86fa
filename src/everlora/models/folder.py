"""Checks what a folder must hold, and must not, to be loaded as a base model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everlora.core.errors import ModelError
from everlora.models.weights import check_index

MOST = 2048
"""Layers, or experts of a layer: more than any model that has been published."""
_REPEATED = re.compile(r"(.*_)?(layers?|experts|blocks|depths?)")


def check_folder(path: Path) -> None:
    """Refuse a folder that holds no model, or none that can be loaded without unpickling.

    Raises:
        ModelError: no config.json, no weights, pickled weights only, or an adapter among the model's files.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"model folder {path} has no config.json; is it a transformers model?")
    # Merged unseen, it would be part of the base: every update would be one of another model than the record says.
    if (path / "adapter_config.json").is_file() or any(path.glob("adapter_model.*")):
        raise ModelError(
            f"model folder {path} holds an adapter (adapter_config.json) with its weights, which transformers would "
            f"put on by itself; move the adapter's files away, or merge it into the model and take the result"
        )
    weights = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    if not weights:
        raise ModelError(f"model folder {path} has a config.json but no weights (*.safetensors)")
    for index in path.glob("*.safetensors.index.json"):
        check_index(index)
    if not any(file.suffix == ".safetensors" for file in weights):
        raise ModelError(
            f"model folder {path} holds pickled weights only, which are never loaded; convert them to safetensors"
        )


def check_depth(name: str, config: Mapping[Any, Any]) -> None:
    """Refuse a configuration with so many layers or experts that making them takes minutes.

    >>> check_depth("mine", {"text_config": {"num_hidden_layers": 32}, "id2label": {0: "good"}})

    Raises:
        ModelError: which number it is.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            check_depth(name, value)  # of a model in parts, text_config and its like
        elif _REPEATED.fullmatch(str(key)) is None:
            continue
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and number > MOST:
                raise ModelError(
                    f"the config.json of {name!r} asks for {key}={number}, and no model has more than {MOST}; copy or "
                    f"download the model again"
                )
