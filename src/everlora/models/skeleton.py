"""Builds a model without its weights, to look at its modules before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from everlora.core.errors import EverloraError
from everlora.models import tiny
from everlora.models.architectures import FAMILIES, family_of
from everlora.models.families.pooled import quiet
from everlora.models.folder import check_depth
from everlora.models.names import PACKAGED, canonical


def skeleton(name: str, revision: str | None = None) -> PreTrainedModel | None:
    """Build the modules of a model from its configuration alone, all of them on the device ``meta``.

    Nothing is fetched, and no code that comes with a model is run.

    >>> model = skeleton("tiny-bert")
    >>> model.config.num_hidden_layers, model.device.type
    (2, 'meta')

    Returns:
        The model; None where its configuration is not on this machine, or cannot be read: loading says why.

    Raises:
        ModelError: the configuration asks for more layers than any model has, or for a model of no known family.
    """
    key = canonical(name).lower()
    if key in tiny.BUILDERS:
        model: PreTrainedModel = tiny.build(key, torch.float32)[0].to("meta")
        return model
    path = PACKAGED[key].path() if key in PACKAGED else Path(name)
    where, more = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (str(path), {})
    try:
        with torch.device("meta"), quiet():
            config: Any = AutoConfig.from_pretrained(
                where, revision=revision, local_files_only=True, trust_remote_code=False, **more
            )
            auto, _ = FAMILIES[family_of(config)]
            check_depth(name, config.to_dict())
            built: PreTrainedModel = auto.from_config(config, trust_remote_code=False)
    except EverloraError:
        raise
    except Exception:  # whatever a library makes of a damaged file
        return None
    return built
