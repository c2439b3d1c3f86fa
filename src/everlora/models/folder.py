"""What a folder must hold, and must not, to be loaded as a base model."""

from __future__ import annotations

from pathlib import Path

from everlora.core.errors import ModelError
from everlora.models.weights import check_index


def check_folder(path: Path) -> None:
    """Refuse a folder that holds no model, or none that can be loaded without unpickling.

    Raises:
        ModelError: no config.json, no weights, pickled weights only, or an adapter among the model's files.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"model folder {path} has no config.json; is it a transformers model?")
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
