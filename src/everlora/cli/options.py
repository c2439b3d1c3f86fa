"""Makes options of the command line from the settings, and the help that shows them in sections."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from typer.core import TyperCommand

from everlora.cli import completion
from everlora.core.errors import ConfigError
from everlora.settings.lora import PATTERN
from everlora.settings.setting import SECTIONS, Known, settings_of
from everlora.settings.spec import DEFAULT_MODEL, LearnerSpec, RawSettings, RunSpec

OPTION_COLUMN = 32
"""Width that names of options may take before their help moves to the next line."""
SETTINGS = {
    one.parameter: one
    for one in sorted(settings_of(RunSpec), key=lambda one: one.path[0] in LearnerSpec.model_fields)
    if one.options
}
"""Settings that have an option, by the name of their parameter; what is of a run alone comes first."""
SHARE = re.compile(r"\d+(\.\d+)?%")
TEXTS = ("all-linear",)
"""Values of settings that take lists which are no lists."""


def takes_settings(
    *, only: Collection[str] = tuple(SETTINGS), leave_out: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for settings of a run; it receives them as its ``**settings``, None where not given.

    Args:
        only: their parameters; by default those of all settings.
        leave_out: parameters that the command has itself, or has no use for.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(one))
            for name, one in SETTINGS.items()
            if name in only and name not in leave_out
        ]
        arguments = [one for one in own if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        everything = [*arguments, *made, *(one for one in own if one not in arguments)]
        # typer reads a command's signature to make its options, so the settings are put there and stand nowhere twice.
        command.__signature__ = signature.replace(parameters=everything)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in everything}
        return command

    return decorate


def _annotation(one: Known) -> Any:
    """Return what typer makes an option of."""
    single = one.kinds[0] if len(one.kinds) == 1 and one.kinds[0] in (bool, int, float, Path) else str
    names = list(one.options)
    if single is bool:
        names[-1] += f"/--no-{one.parameter.replace('_', '-')}"
    option = typer.Option(
        *names,
        metavar=one.setting.value or None,
        help=_help(one),
        rich_help_panel=one.setting.section,
        autocompletion=completion.of(one),
    )
    return Annotated[single | None, option]


def _help(one: Known) -> str:
    """Return a setting's help, with its choices and its default."""
    text = one.setting.help
    if one.choices:
        text = f"{text.removesuffix('.')}: {', '.join(one.choices)}."
    default = one.setting.unset or ("" if one.default is None else _shown(one.default))
    return f"{text} [{default}]" if default else text


def _shown(default: Any) -> str:
    return ("yes" if default else "no") if isinstance(default, bool) else str(default)


def layers(given: RawSettings, config: Path | None, more: list[str] | None = None) -> tuple[RawSettings, ...]:
    """Return settings as the command line names them, before they are merged: defaults, recipe, options.

    Args:
        given: values by parameter, as a command that `takes_settings` receives them.
        config: the file of ``--config``.
        more: the pairs of ``--set``.

    Raises:
        ConfigError: a recipe that cannot be read or wants code to run, or a setting that is no pair.
    """
    from everlora.learner.resolve import read_recipe, refuse_code

    typed: dict[str, Any] = {}
    for name, value in given.items():
        *groups, key = SETTINGS[name].path
        place = typed
        for group in groups:
            place = place.setdefault(group, {})
        place[key] = _value(SETTINGS[name], value)
    typed.setdefault("train", {}).update(pairs(more))
    recipe = refuse_code(read_recipe(config), typed, config) if config else {}
    return {"model": DEFAULT_MODEL}, recipe, typed


def _value(one: Known, value: Any) -> Any:
    """Return a value as it was typed, or the list that its text spells."""
    is_list = any(get_origin(kind) is list for kind in one.kinds)
    is_text = value in TEXTS or (str in one.kinds and isinstance(value, str) and PATTERN.search(value))
    return value.replace(",", " ").split() if is_list and value is not None and not is_text else value


def pairs(values: list[str] | None, option: str = "--set") -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises:
        ConfigError: a pair without ``=``.
    """
    found = {}
    for value in values or []:
        name, equals, text = value.partition("=")
        if not equals:
            raise ConfigError(f"cannot read {option} {value!r}; write {option} name=value")
        found[name.strip().replace("-", "_") if option == "--set" else name.strip()] = text.strip()
    return found


def with_share(args: list[str]) -> list[str]:
    """Give the share behind ``--parity`` to an option of its own, since a flag takes none and may be alone.

    >>> with_share(["--parity", "5%", "a"]), with_share(["--parity=5", "a"]), with_share(["--parity", "a"])
    (['--parity', '--parity-limit=5%', 'a'], ['--parity', '--parity-limit=5', 'a'], ['--parity', 'a'])
    """
    found: list[str] = []
    for arg in args:
        name, _, value = arg.partition("=")
        if name == "--parity" and value:
            found += [name, f"--parity-limit={value}"]
        elif found[-1:] == ["--parity"] and SHARE.fullmatch(arg):
            found.append(f"--parity-limit={arg}")
        else:
            found.append(arg)
    return found


class Command(TyperCommand):
    """Is a command whose help stands in sections, and whose suggestions know other words for an option."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        sections = any(getattr(one, "rich_help_panel", None) in SECTIONS for one in self.get_params(ctx))
        for one in self.get_params(ctx):
            if row := one.get_help_record(ctx):
                plain = "arguments" if one.param_type_name == "argument" else "output" if sections else "options"
                if plain == "arguments":
                    row = (row[0].partition(" <")[0], row[1])  # typer puts the Python type behind the name
                panels.setdefault(getattr(one, "rich_help_panel", None) or plain, []).append(row)
        for panel in ("arguments", *SECTIONS, "options"):
            if panel in panels:
                with formatter.section(panel):
                    formatter.write_dl(panels[panel], col_max=OPTION_COLUMN)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(one.name == "parity_limit" for one in self.get_params(ctx)):
            args = with_share(args)
        with self._better_suggestions(ctx):
            return super().parse_args(ctx, args)

    @contextmanager
    def _better_suggestions(self, ctx: Any) -> Iterator[None]:
        """Name the option of a setting where an unknown option is another word for it."""
        try:
            yield
        except Exception as error:
            if (typed := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
                from everlora.training.arguments import ABOVE_ZERO, NOT_NEGATIVE

                word = typed.lstrip("-").replace("-", "_").lower()
                here = {option.lstrip("-"): option for one in self.get_params(ctx) for option in one.opts}
                meant = [one.options[-1] for one in SETTINGS.values() if _means(one, word)]
                near = [here[name] for name in get_close_matches(word.replace("_", "-"), here, n=2, cutoff=0.75)]
                if "set" in here and word in (*ABOVE_ZERO, *NOT_NEGATIVE):
                    near = [f"--set {word}=…"]
                error.possibilities = [o for o in meant if o in here.values()][:1] or near
            raise


def _means(one: Known, word: str) -> bool:
    return word in (one.path[-1], *one.setting.aka)
