"""Defines the settings of LoRA: the fields of `peft.LoraConfig` that are taken, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from everlora.core.errors import ConfigError
from everlora.settings.setting import Setting, Strict

OF_TARGETS = frozenset({"exclude_modules", "layers_to_transform", "layers_pattern"})
"""Settings of which modules are adapted, beside ``target_modules``."""
OF_PAIRS = frozenset({"use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"})
"""Settings of plain LoRA pairs B A, which no other form of adapter has."""


SIDES = ("encoder", "decoder")
"""Stacks that may be chosen by name: those with this word in their path."""


def split_side(given: str) -> tuple[str | None, str | None]:
    """Return the stack that ``decoder:top:2`` or ``decoder`` means and what is said of its layers, None where nothing.

    >>> split_side("decoder:top:2"), split_side("decoder"), split_side("4-5")
    (('decoder', 'top:2'), ('decoder', None), (None, '4-5'))
    """
    side, colon, rest = given.strip().partition(":")
    if side not in SIDES:
        return None, given
    return side, rest if colon else None


def read_layers(given: str) -> tuple[int, int] | int:
    """Return the range (first, last) that ``a-b`` or ``a`` names, or the number of upper layers of ``top:n``.

    >>> read_layers("4-5"), read_layers("3"), read_layers("top:2")
    ((4, 5), (3, 3), 2)

    Raises:
        ConfigError: it is neither.
    """
    if found := re.fullmatch(r"top:(\d+)", given.strip()):
        if int(found[1]) > 0:
            return int(found[1])
    elif (found := re.fullmatch(r"(\d+)(?:-(\d+))?", given.strip())) and int(found[1]) <= int(found[2] or found[1]):
        return int(found[1]), int(found[2] or found[1])
    raise ConfigError(
        f"layers are top:2, the two upper ones, or 4-5, from 0 and both included, of an encoder-decoder also "
        f"decoder:top:2 or decoder, or all, not {given!r}"
    )


class LoraSpec(Strict):
    """Holds LoRA's settings, with PEFT's names (`peft.LoraConfig`); `UNSUPPORTED` holds the other names."""

    r: Annotated[
        int,
        Setting(
            "method",
            "Rank per task.",
            options=("--lora-r", "--lora-rank"),
            value="N",
            aka=("rank", "lora_r", "lora_rank"),
        ),
    ] = Field(8, ge=1)
    lora_alpha: Annotated[
        float, Setting("method", "The update is alpha/r · BA.", value="X", aka=("alpha", "scaling"))
    ] = Field(8, gt=0)
    lora_dropout: Annotated[
        float, Setting("method", "Dropout on the adapter's input.", value="X", aka=("dropout",))
    ] = Field(0.0, ge=0, lt=1)
    target_modules: Annotated[
        list[str] | str | None,
        Setting(
            "method",
            "Modules: a,b, a pattern, or all-linear.",
            options=("--lora-target-modules",),
            value="A,B",
            unset="PEFT's",
            aka=("targets", "modules", "lora_target_modules"),
        ),
    ] = None
    layers: Annotated[
        str | None,
        Setting(
            "method",
            "Layers to adapt: top:2, 4-5, decoder:top:2.",
            options=("--lora-layers",),
            value="WHICH",
            unset="all",
        ),
    ] = None
    """The upper ones, or a range from 0 with both ends, or of an encoder-decoder those of its ``decoder``; what lies
    below the lowest reads each text once and without dropout. ``all`` is None, where a recipe names some."""
    exclude_modules: Annotated[
        list[str] | str | None,
        Setting("method", "Modules not to adapt: names, or a pattern.", options=(), unset="none"),
    ] = None
    layers_to_transform: Annotated[
        list[int] | int | None,
        Setting("method", "Numbers of the layers to adapt.", options=(), unset="all"),
    ] = None
    layers_pattern: Annotated[
        list[str] | str | None,
        Setting("method", "Name of the list in which these layers are.", options=(), unset="any"),
    ] = None
    use_rslora: Annotated[
        bool | None,
        Setting("method", "Scale by alpha/√r.", options=(), unset="alpha/r", aka=("rslora", "rs_lora")),
    ] = None
    rank_pattern: Annotated[
        dict[str, Annotated[int, Field(ge=1)]] | None,
        Setting("method", "Ranks of modules by name or pattern.", options=(), unset="r", aka=("ranks",)),
    ] = None
    alpha_pattern: Annotated[
        dict[str, Annotated[float, Field(gt=0)]] | None,
        Setting("method", "Alphas of modules by name or pattern.", options=(), unset="lora_alpha", aka=("alphas",)),
    ] = None
    init_lora_weights: Annotated[
        Literal["gaussian"] | None,
        Setting("method", "How A is drawn; B is 0.", options=(), unset="Kaiming's uniform", aka=("init",)),
    ] = None

    @field_validator("layers")
    @classmethod
    def _readable(cls, layers: str | None) -> str | None:
        if layers is None or layers.strip() == "all":
            return None
        _, inside = split_side(layers)
        if inside is not None:
            read_layers(inside)
        return layers


_INPUT = (
    "what it adds depends on the input, so that it cannot be folded into the weights below the next task's adapter"
)
_BASE = "it changes the base model's weights, on which every task's update stands"
UNSUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(
        ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
         "inference_mode"),
        "everlora writes it itself",
    ),
    "fan_in_fan_out": "it is read off each layer: a Conv1D is transposed, a Linear is not",
    "bias": "biases are no update of low rank, which could be added up over tasks and protected; seqft trains them",
    "modules_to_save": "a classification head is saved by itself; other modules that are trained as they are have no "
    "update that could be added up over tasks and protected; seqft trains all of them",
    "trainable_token_indices": "rows of an embedding are no update of low rank; seqft trains them",
    "lora_bias": "a bias of B is no part of the update B A",
    "use_dora": "its update depends on the norms of the weights below, which the next task changes: it is no product "
    "B A, which penalties, merges and the sum over tasks take it for",
    "layer_replication": "copied layers share their weights, so that what is folded into one would change the other",
    "ensure_weight_tying": "modules that share their weights are refused as targets",
    "target_parameters": "only modules are adapted, since an update belongs to one matrix",
    "alora_invocation_tokens": _INPUT,
    "arrow_config": _INPUT,
    "monteclora_config": "it adds noise to the update, which is then no product B A",
    "kasa_config": _BASE,
    **dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
                    "it belongs to an initialisation that is not supported, see 'init_lora_weights'"),
    "velora_config": "it replaces the gradient of A by an estimate, which transforms and strengths take for exact",
    **dict.fromkeys(("use_qalora", "qalora_group_size"), "it pools the input, so that A is no factor of an update"),
    "use_bdlora": "it trains blocks of A or B alone, which no penalty or merge knows of",
    **dict.fromkeys(("megatron_config", "megatron_core"), "models of transformers have no layers of Megatron"),
    "runtime_config": "it is for DoRA alone",
}  # fmt: skip
"""Fields of `peft.LoraConfig` that would be ignored or would break what is promised, and why."""
_INITIAL = (
    "a task must begin where the one before ended, with B = 0 and the base model's weights as they are; give True or "
    "'gaussian', or a method that starts from the past (everlora methods)"
)
_NEUTRAL = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16, "peft_type": "LORA"}
"""Values of unsupported fields that ask for nothing, beside empty ones: an adapter_config.json spells them out."""
PATTERN = re.compile(r"[*+?()\[\]|\\^$]")
"""What a pattern has, and no name of a module."""


def checked_lora(given: Mapping[str, object]) -> dict[str, object]:
    """Return LoRA's settings without those that ask for nothing; texts that name modules become lists of names.

    >>> checked_lora({"target_modules": "q_proj,v_proj", "bias": "none", "use_rslora": False})
    {'target_modules': ['q_proj', 'v_proj']}

    Raises:
        ConfigError: a field of `peft.LoraConfig` that is not supported, or a pattern that is none.
    """
    found = {name: value for name, value in given.items() if not _is_default(name, value)}
    for name in found:
        if name in UNSUPPORTED:
            raise ConfigError(f"the LoRA setting {name!r} is not supported by everlora: {UNSUPPORTED[name]}")
    if (initial := found.get("init_lora_weights")) not in (None, "gaussian"):
        raise ConfigError(f"the LoRA setting 'init_lora_weights' may not be {initial!r}: {_INITIAL}")
    for name in ("target_modules", "exclude_modules"):
        text = found.get(name)
        if isinstance(text, str) and text != "all-linear" and not PATTERN.search(text):
            found[name] = text.replace(",", " ").split()
    _check_layers(found.get("layers_to_transform"), found.get("target_modules"))
    if found.get("layers_pattern") and found.get("layers_to_transform") is None:
        raise ConfigError("the LoRA setting 'layers_pattern' means nothing without 'layers_to_transform'")
    for name in ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern"):
        for pattern in _patterns(name, found.get(name)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"the LoRA setting {name!r}: {pattern!r} is no pattern: {error}") from None
    return found


def _check_layers(layers: object, targets: object) -> None:
    """Refuse layers that are no numbers, or that PEFT would not look at.

    Raises:
        ConfigError: what is given, and what to give.
    """
    if isinstance(layers, str):
        raise ConfigError(f"the LoRA setting 'layers_to_transform' takes numbers such as [0, 1], not {layers!r}")
    if layers is not None and isinstance(targets, str):
        way = "give 'layers' (--lora-layers 0-1)" if targets == "all-linear" else "write the layers into the pattern"
        raise ConfigError(
            f"the LoRA setting 'layers_to_transform' needs 'target_modules' as names, not {targets!r}; {way}"
        )


def _is_default(name: str, value: Any) -> bool:
    """Return whether a value is what PEFT takes if nobody names one."""
    if name == "init_lora_weights":
        return value is True
    if name in UNSUPPORTED:
        return value is None or value is False or value in ("", [], {}) or value == _NEUTRAL.get(name)
    return name in ("use_rslora", *OF_PAIRS, *OF_TARGETS) and (value is False or value in ([], {}, ""))


def _patterns(name: str, value: Any) -> list[str]:
    """Return the patterns of a setting; lists of modules are lists of names."""
    if isinstance(value, str):
        return [value]
    several = isinstance(value, list | dict) and not name.endswith("_modules")
    return [one for one in value if isinstance(one, str)] if several else []
