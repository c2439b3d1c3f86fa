"""Reads protocols, which say how methods are compared: settings of a run without method, model, seed and order.

Its hash stands beside every number that it made:

    hash = first 12 hex digits of SHA-256 of the run's resolved settings as JSON with sorted keys, without
           - settings that change no protocol, as each of them says in `everlora.settings.spec`: what is compared over
             (method, model and its revision, seed, benchmark, order, tasks), what changes no number (device, batch
             size of answering, logging, measures of general ability), and dtype, which stands in the fingerprint of
             every score instead;
           - what is not set, so that a later version may have more to set;
           with ``learning_rate: form`` where the rate is left to the method's form, and ``num_train_epochs: by size``
           where the number of steps is left to each task's rows; with the rows of a whole step as
           ``batch``, however they are split into micro-batches and processes; with the default prompt spelt out.

Two runs of one hash differ only in these. The data themselves have hashes of their own, task by task.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from everlora.core.errors import ConfigError, nearest
from everlora.core.plain import JsonObject
from everlora.data.template import DEFAULT
from everlora.runtime.safe_yaml import NotYaml, read_yaml
from everlora.settings.setting import Strict, settings_of
from everlora.settings.spec import RawSettings, RunSpec, check

SETTINGS = settings_of(RunSpec)
COMPARED = tuple(one.path[0] for one in SETTINGS if one.setting.compared)
"""Settings that a protocol leaves to the run."""
IRRELEVANT = frozenset(one.path for one in SETTINGS if one.setting.changes != "protocol")
"""Settings, by their place, of which the hash is independent."""
SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Into which a batch is split: the steps are the same for every split."""


class Protocol(Strict):
    """Holds a protocol as its file has it.

    Attributes:
        title: one line.
        hash: as `everlora protocols` prints it; not read, since it follows from the settings.
        source: paper and section that it is from.
        published: in words, what it was used with: model, data, hardware.
        remarks: what is unknown or was decided here.
        settings: as in a recipe.
    """

    title: str
    hash: str = ""
    source: str = ""
    published: dict[str, str] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)
    settings: dict[str, object]


def known() -> list[str]:
    """Return the names of the packaged protocols."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def read(name: str) -> tuple[str, Protocol]:
    """Read a packaged protocol by name, or a file of one's own; also return the name under which runs record it.

    Raises:
        ConfigError: there is none, it is no protocol, or it sets what a protocol leaves open.
    """
    own = name.lower().endswith((".yaml", ".yml"))
    if not own and name not in known():
        raise ConfigError(
            f"unknown protocol {name!r}{nearest(name, known())} (everlora protocols lists them; a path ends in .yaml)"
        )
    path = Path(name) if own else _folder() / f"{name}.yaml"
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the protocol {name}: {error.strerror}") from None
    except NotYaml as error:
        raise ConfigError(f"the protocol {name}{error.where} is not valid YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the protocol {name} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise ConfigError(f"the protocol {name} must be a mapping with title and settings")
    try:
        found = check(Protocol, content)
        # A slip in it shows when it is read, and not in the midst of whatever command uses it.
        check(RunSpec, {"model": "", **found.settings})
    except ConfigError as error:
        raise ConfigError(f"the protocol {name}: {error}") from None
    for key in COMPARED:
        if key in found.settings:
            raise ConfigError(f"the protocol {name} sets {key!r}, which a protocol leaves to the run; take it out")
    return (Path(name).stem if own else name), found


def digest(settings: RawSettings, rate: float, processes: int = 1) -> str:
    """Return the hash of the protocol that resolved settings follow.

    Args:
        settings: plain values, complete.
        rate: the learning rate of the method's form.
        processes: that share a batch, each with its own rows.
    """
    return hashlib.sha256(json.dumps(canonical(settings, rate, processes), sort_keys=True).encode()).hexdigest()[:12]


def canonical(settings: RawSettings, rate: float, processes: int = 1) -> JsonObject:
    """Return what the hash is of; see `digest`."""
    settled: dict[str, Any] = _plain({key: value for key, value in settings.items() if (key,) not in IRRELEVANT})
    settled.setdefault("prompt", DEFAULT)
    settled.setdefault("max_new_tokens", 50)  # or more where targets are longer; earlier versions wrote 50 for it
    for group in {path[0] for path in IRRELEVANT if len(path) > 1}:
        settled[group] = {
            key: value for key, value in settled.get(group, {}).items() if (group, key) not in IRRELEVANT
        }
    train = settled["train"]
    train.setdefault("num_train_epochs", "by size")
    # The rows of a step and not their split, which changes no number: one protocol on one machine and on four.
    train["batch"] = processes * math.prod(train.pop(name, 1) for name in SPLIT)
    followed = settings.get("protocol")
    of_form = isinstance(followed, Mapping) and followed.get("rate") == "form"
    if of_form and train.get("learning_rate") == _plain(rate):
        train["learning_rate"] = "form"
    return settled


def _plain(value: Any) -> Any:
    """Return a value without what is not set; 1 and 1.0 are one number, and what JSON has no word for is its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _folder() -> Any:
    return files("everlora.settings") / "protocols"
