"""Defines what every part has: a name, declared needs, and a contract that is checked when its class is made.

A part inherits one role (`WeightPenalty`, say) and any number of abilities (`HasMemory`, say). Whatever would be
ignored without a word at run time (a forgotten method, a misspelt attribute, an ability that is not inherited) is a
`ConfigError` of one sentence as soon as Python reads the class.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from everlora.core.errors import ConfigError, nearest

__all__ = ["Needs", "Part", "attribute", "check_choices", "check_part"]

if TYPE_CHECKING:
    from builtins import property as attribute
else:

    class attribute:
        """Declares a value that a part must give, as a field, as a class attribute or as a property.

        An abstract property would do the same, were it not that dataclasses take it for the default of the field that
        overrides it.
        """

        __isabstractmethod__ = True

        def __init__(self, declared: Callable[[Any], Any]) -> None:
            self.__doc__ = declared.__doc__
            self.fget = declared

        def __get__(self, part: Any, owner: type) -> Any:
            raise AttributeError("a role declares this value, and the part does not give it")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Declares what a part needs of its method, and how its role is to treat it: one value on its class.

    Each field belongs to one role or ability; set on a part of another it is refused, and so is an unknown field.

    >>> from everlora.roles import Needs
    >>> Needs(fresh_adapter=True).svd_form
    False
    >>> Needs(fresh_adaptor=True)
    Traceback (most recent call last):
        ...
    everlora.core.errors.ConfigError: Needs has no field 'fresh_adaptor'; did you mean 'fresh_adapter'?

    Attributes:
        fresh_adapter: every task must train a new adapter; refused where one adapter is trained on and on.
        continued_adapter: one adapter must be trained on and on; refused where every task trains a new one.
        svd_form: the adapter must be in SVD form, U Σ V.
        any_form: it works on whatever is trained (prompts, all weights); the others work on low-rank updates alone.
        tensors: it acts only on modules that have live tensors of these names (penalties and transforms).
        order: transforms act in ascending order of this number (masks, 0, before projections, 1).
        first_task: an initialiser that acts on the first task, too.
        cumulative_memory: a memory that grows from task to task even where one adapter is trained on and on, which
            otherwise is remembered afresh after every task (`HasMemory`).
        memory_at_most: `memory_bytes` is the most that the memory can take, since its size depends on the data.
        stored_rows: a rehearsal stores rows of earlier tasks; False if, say, the model writes them.
    """

    fresh_adapter: bool = False
    continued_adapter: bool = False
    svd_form: bool = False
    any_form: bool = False
    tensors: tuple[str, ...] = field(default=(), metadata={"of": ("WeightPenalty", "GradientTransform")})
    order: int = field(default=1, metadata={"of": ("GradientTransform",)})
    first_task: bool = field(default=False, metadata={"of": ("Initialiser",)})
    cumulative_memory: bool = field(default=False, metadata={"of": ("HasMemory",)})
    memory_at_most: bool = field(default=False, metadata={"of": ("HasMemory",)})
    stored_rows: bool = field(default=True, metadata={"of": ("Rehearsal",)})

    def __new__(cls, **given: Any) -> Needs:
        """Refuse fields that do not exist, with the name that was meant."""
        known = {one.name: one.default for one in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise ConfigError(f"Needs has no field {name!r}{nearest(name, known)}")
            if type(value) is not type(known[name]):
                raise ConfigError(
                    f"the field {name!r} of Needs is a {type(known[name]).__name__}, not {value!r}; its default is "
                    f"{known[name]!r}"
                )
        return super().__new__(cls)


FORMER_FLAGS = {
    "needs_fresh": "fresh_adapter=True",
    "needs_continued": "continued_adapter=True",
    "needs_svd": "svd_form=True",
    "any_form": "any_form=True",
    "first_too": "first_task=True",
    "cumulative": "cumulative_memory=True",
    "at_most": "memory_at_most=True",
    "keeps_rows": "stored_rows=False",
}
"""Class attributes that parts once carried, and what stands in `Needs` for them."""
FLAGS = {one.name for one in fields(Needs) if isinstance(one.default, bool)}
"""Fields of `Needs` that no option of a part may be called: as an option, nobody would read it."""
CLOSE = 0.84
"""Names that are more alike than this are taken for a slip."""
LONG = 6
"""Names shorter than this are near to too many others to be called a slip."""


class Part:
    """Is a piece of a method: a frozen, keyword-only dataclass that holds settings and no state.

    Roles mark what a part must define with `abc.abstractmethod`, and are no `abc.ABC`: that one looks at all classes
    below a role to answer ``isinstance``, and would be misled by a class that was refused while it was made.

    A class that other parts are to inherit, and that is not complete itself, is made with ``abstract=True``.

    Attributes:
        name: under which its memory and its figures are recorded; it seeds what the part draws.
        needs: what it needs of the method that it stands in.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    roles: ClassVar[list[type[Part]]] = []
    """All roles, of which a part has one."""
    abilities: ClassVar[list[type[Part]]] = []
    """All abilities, of which a part has any number."""

    def __init_subclass__(
        cls, *, abstract: bool = False, role: bool = False, ability: bool = False, **options: Any
    ) -> None:
        """Check the contract.

        Raises:
            ConfigError: the class breaks it; the sentence says how, and what to write.
        """
        super().__init_subclass__(**options)
        if role:
            Part.roles.append(cls)
        elif ability:
            Part.abilities.append(cls)
        elif not abstract:
            _check(cls)


def _check(cls: type[Part]) -> None:
    """Refuse a part that could not do what it looks like; slips in names first, since they explain what is lacking."""
    called = cls.__name__
    mine = [role for role in Part.roles if issubclass(cls, role)]
    if len(mine) > 1:
        words = " and a ".join(role.__name__ for role in mine)
        raise ConfigError(f"{called} is a {words} at once; make it two parts, and give a method both")
    if not mine:
        known = ", ".join(role.__name__ for role in Part.roles)
        raise ConfigError(f"{called} has abilities but no role; let it inherit one of {known}")
    role = mine[0].__name__
    lacking = [name for name in _declared(cls) if not _given(cls, name)]
    if lacking:
        own = [name for base in _own(cls) for name in (*vars(base), *_annotations(base))]
        slips = [f"it defines {name!r}: did you mean {one!r}?" for one in lacking for name in _near(one, own)]
        todo = " ".join(slips) or "define it in the class"
        raise ConfigError(f"the {role} {called} lacks {' and '.join(lacking)}; {todo}")
    name = next((vars(base)["name"] for base in cls.__mro__ if "name" in vars(base)), None)
    if not isinstance(name, str) or not name:
        made = re.sub(r"(?<!^)(?=[A-Z])", "_", called).lower()
        raise ConfigError(f"the {role} {called} has no name; write name: ClassVar[str] = {made!r} in its body")
    _check_needs(cls, role)
    _check_names(cls, role)
    check_choices(cls)


def check_choices(part: Part | type[Part]) -> None:
    """Refuse a value of a part that is none of the few that its role or ability leaves to choose from.

    Of a class only text in its body is looked at; what properties return is known of an instance alone.
    """
    cls = part if isinstance(part, type) else type(part)
    for base in cls.__mro__:
        for name, declared in vars(base).items() if base in Part.roles or base in Part.abilities else ():
            kind = get_type_hints(declared.fget).get("return") if isinstance(declared, attribute) else None
            if get_origin(kind) is not Literal:
                continue
            value = inspect.getattr_static(cls, name) if cls is part else getattr(part, name)
            if (isinstance(value, str) or cls is not part) and value not in get_args(kind):
                raise ConfigError(
                    f"{name} of the {base.__name__} {cls.__name__} cannot be {value!r}"
                    f"{nearest(str(value), get_args(kind))}"
                )


def check_part(part: object, field: str, role: type) -> None:
    """Refuse what a method cannot hold in a field: a part of another role, one that can change, or an odd value."""
    kind = type(part)
    if not (isinstance(part, Part) and isinstance(part, role)):
        raise ConfigError(f"the field {field!r} of a method takes a {role.__name__}, and a {kind.__name__} is none")
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(
            f"the {role.__name__} {kind.__name__} is no frozen dataclass; write @dataclass(frozen=True, kw_only=True) "
            f"above its class"
        )
    check_choices(part)


def _check_needs(cls: type[Part], role: str) -> None:
    """Refuse needs that no role of the part has."""
    if not isinstance(cls.needs, Needs):
        raise ConfigError(f"the needs of the {role} {cls.__name__} must be a Needs(…), not {cls.needs!r}")
    for one in fields(cls.needs):
        of = one.metadata.get("of")
        if of and getattr(cls.needs, one.name) != one.default and not {*of} & {base.__name__ for base in cls.__mro__}:
            raise ConfigError(
                f"the {role} {cls.__name__} sets {one.name} in its needs, which only {' or '.join(of)} has; leave it "
                f"out, or inherit {of[0]}"
            )


def _check_names(cls: type[Part], role: str) -> None:
    """Refuse attributes that nobody would read: of abilities that are not inherited, former flags, and slips."""
    for base in _own(cls):
        options = {name for name, kind in _annotations(base).items() if "ClassVar" not in str(kind)}
        for name in {**vars(base), **_annotations(base)}:
            if name in FORMER_FLAGS:
                raise ConfigError(
                    f"the {role} {cls.__name__} sets {name}, which nobody reads; write needs: ClassVar[Needs] = "
                    f"Needs({FORMER_FLAGS[name]})"
                )
            if name.startswith("_") or (name in options and name not in FLAGS):
                continue
            if any(name == one.name for one in fields(Needs)):
                raise ConfigError(
                    f"the {role} {cls.__name__} sets {name} on its class, where nobody reads it; it is a field of "
                    f"needs: ClassVar[Needs] = Needs({name}=…)"
                )
            ability = next((one for one in Part.abilities if name in _signs(one)), None)
            if ability and not issubclass(cls, ability):
                raise ConfigError(
                    f"the {role} {cls.__name__} defines {name}, which nobody calls unless it inherits "
                    f"{ability.__name__}; write class {cls.__name__}({role}, {ability.__name__})"
                )
            if meant := _slip(name):
                raise ConfigError(
                    f"the {role} {cls.__name__} defines {name!r}, which nobody reads; did you mean {meant!r}? (a name "
                    f"that begins with an underscore is its own affair)"
                )


def _declared(cls: type[Part]) -> Iterator[str]:
    """Return the names that the roles and abilities of a class want it to define."""
    for base in cls.__mro__:
        if base in Part.roles or base in Part.abilities:
            yield from (name for name, value in vars(base).items() if getattr(value, "__isabstractmethod__", False))


def _signs(ability: type[Part]) -> list[str]:
    """Return the names that show that a class means to have an ability: its methods, and what it declares first.

    Its further values (a number of samples, say) may be settings of any part.
    """
    declared = [name for name in vars(ability) if name in set(_declared(ability))]
    return [name for name in declared if name == declared[0] or inspect.isfunction(vars(ability)[name])]


def _given(cls: type[Part], name: str) -> bool:
    """Return whether a class defines what its roles want, or has a field of this name."""
    base = next(base for base in cls.__mro__ if name in vars(base) or name in _annotations(base))
    return name not in vars(base) or not getattr(vars(base)[name], "__isabstractmethod__", False)


def _own(cls: type[Part]) -> Iterator[type]:
    """Return the class and those that it inherits, but for the roles, the abilities and what is above them."""
    outside = {*Part.roles, *Part.abilities}
    return (base for base in cls.__mro__ if base not in outside and base not in (Part, object))


def _annotations(cls: type) -> dict[str, object]:
    return inspect.get_annotations(cls)


def _slip(name: str) -> str | None:
    """Return the name that was meant by one that is nearly of a role or a flag; None if it is one, or near to none."""
    known = {"needs", *FLAGS}
    known |= {*(one for kind in (*Part.roles, *Part.abilities) for one in (*vars(kind), *_annotations(kind)))}
    if name in known:
        return None
    return next(iter(_near(name, [one for one in known if len(one) >= LONG or one == "needs"])), None)


def _near(name: str, known: list[str]) -> list[str]:
    close = difflib.get_close_matches(name.lower(), [one for one in known if not one.startswith("_")], 1, CLOSE)
    return [one for one in close if one != name]
