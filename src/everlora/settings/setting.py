"""Describes a setting in addition to its type and its default: help, section, option, and what it changes.

A setting is a field of a model in `everlora.settings.spec`, or a key of `everlora.settings.training.Training`,
annotated with a `Setting`. The command line, its help, the keys of YAML files, the hash of a protocol and the
suggestions in error messages are all made from these annotations, so nothing about a setting is written twice.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticUndefined

from everlora.core.errors import closest

Section = Literal["data", "model", "method", "training", "evaluation", "output"]
Changes = Literal["protocol", "record", "nothing"]
SECTIONS: tuple[Section, ...] = get_args(Section)


class Strict(BaseModel):
    """Refuses unknown keys and numbers that are not finite, and is never edited afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_booleans(cls.model_fields[str(info.field_name)].annotation, value)
        return (
            sorted(value, key=str) if isinstance(value, set | frozenset) else value
        )  # whose order is another each time


def refuse_booleans(kind: Any, value: Any) -> None:
    """Refuse a boolean where a number is wanted: pydantic takes it for 1 or 0, and YAML reads yes and no as booleans.

    Raises:
        ValueError: there is one.
    """
    if _holds_boolean(value) and not _takes_booleans(kind):
        raise ValueError("yes, no, true and false are booleans and no numbers; give a number, or a text in quotes")


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_holds_boolean, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _takes_booleans(kind: Any) -> bool:
    """Return whether an annotation has a place for booleans, or for what is looked at elsewhere."""
    if get_origin(kind) is Annotated:
        return _takes_booleans(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return any(isinstance(one, bool) for one in get_args(kind))
    if inside := get_args(kind):
        return any(map(_takes_booleans, inside))
    plain = isinstance(kind, type) and issubclass(kind, int | float | str | types.NoneType) and kind is not bool
    return not plain


@dataclass(frozen=True)
class Setting:
    """Annotates one setting.

    Attributes:
        section: where it stands in ``--help``.
        help: one line.
        changes: ``protocol``, another value makes another protocol and another run; ``record``, another run of the
            same protocol; ``nothing``, neither, because the setting does not matter or is recorded in another form.
        compared: whether methods are compared over it, so that a protocol must leave it to the run.
        options: names on the command line; None for ``--`` and the name of the field, an empty tuple for no option.
        value: placeholder of the value in ``--help``.
        default: for a setting whose type has none, the value that is taken.
        unset: in words, what happens where no value is given.
        aka: other words for it, from which an error message finds the setting that was meant.
    """

    section: Section
    help: str
    _: KW_ONLY
    changes: Changes = "protocol"
    compared: bool = False
    options: tuple[str, ...] | None = None
    value: str = ""
    default: Any = None
    unset: str = ""
    aka: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Holds a setting with its place: ``path`` is its keys in a YAML file, from the outside in."""

    path: tuple[str, ...]
    type: Any
    default: Any
    setting: Setting

    @property
    def options(self) -> tuple[str, ...]:
        """Return its names on the command line; none for a setting of files and Python only."""
        return ("--" + self.path[-1].replace("_", "-"),) if self.setting.options is None else self.setting.options

    @property
    def parameter(self) -> str:
        """Return its name among the parsed options: the first long one, spelt as Python spells names."""
        return next(o for o in self.options if o.startswith("--")).lstrip("-").replace("-", "_")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Return the types of its values, without None."""
        return tuple(kind for kind in _alternatives(self.type) if kind is not type(None))

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the values that it may have, where there are only these."""
        found = [get_args(kind) for kind in self.kinds]
        return tuple(str(choice) for choices in found for choice in choices) if self._literal else ()

    @property
    def _literal(self) -> bool:
        return all(get_origin(kind) is Literal for kind in self.kinds)


@cache
def settings_of(kind: Any) -> tuple[Known, ...]:
    """Return all settings of a model, those of its groups among them, in the order of their definition."""
    return tuple(_walk(kind, ()))


def _walk(kind: Any, above: tuple[str, ...]) -> Iterator[Known]:
    if is_typeddict(kind):
        for name, annotation in get_type_hints(kind, include_extras=True).items():
            plain, setting = get_args(annotation)
            yield Known((*above, name), plain, setting.default, setting)
        return
    for name, field in kind.model_fields.items():
        setting = next((one for one in field.metadata if isinstance(one, Setting)), None)
        if setting is not None:
            default = setting.default if field.default is PydanticUndefined else field.default
            yield Known((*above, name), field.annotation, default, setting)
        elif (group := _group(field)) is not None:
            yield from _walk(group, (*above, name))


def _group(field: Any) -> Any:
    """Return the model whose settings a field holds: its type, or the typed dictionary that annotates a plain one."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return field.annotation
    return next((one for one in field.metadata if is_typeddict(one)), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for one in get_args(annotation) for kind in _alternatives(one))
    return (annotation,)


def suggestion(name: str, kind: Any, group: tuple[str, ...] = ()) -> str:
    """Return ``"; did you mean 'x'?"`` for an unknown key ``name`` of ``group``, or an empty text if nothing is near.

    Looked for as another word for a setting of the group where the key stands; then as the exact name of a setting
    of another group, or another word for it, named with its group; then as a near spelling in the group.
    """
    known = settings_of(kind)
    meant = [one.path[-1] for one in known if one.path[:-1] == group and name.lower() in one.setting.aka]
    # Inside a group the bare name of a setting of the top would look like one of the group.
    others = [one for one in known if len(one.path) > 1 or not group]
    meant += [".".join(one.path) for one in others if name.lower() in (one.path[-1], *one.setting.aka)]
    found = meant[0] if meant else closest(name, _keys(kind, group))
    return f"; did you mean {found!r}?" if found else ""


def _keys(kind: Any, group: tuple[str, ...]) -> list[str]:
    """Return the keys of a group of settings."""
    settings = kind.model_fields if issubclass(kind, BaseModel) else {}
    for name in group:
        inside = _alternatives(settings[name].annotation) if name in settings else ()
        model = next((one for one in inside if isinstance(one, type) and issubclass(one, BaseModel)), None)
        settings = model.model_fields if model else {}
    return list(settings)
