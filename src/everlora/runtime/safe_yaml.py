"""Reads every YAML file: what a file may cost is counted before anything is made of it.

A few lines of YAML can stand for gigabytes (aliases of aliases), for a value that contains itself, or for more levels
than Python can follow. The events of the parser are counted first, aliases with all that they stand for; only a text
that stays within bounds becomes values.
"""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 100
"""Levels of lists and mappings inside each other."""
MOST = 1_000_000
"""Values of a file, with every alias written out."""

# The loader in C, where PyYAML has it, reads all packaged benchmarks in a fortieth of a second.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotYaml(ValueError):
    """Says that a text is no YAML, or more than a file should be; ``line`` is where, from 1, if it is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line

    @property
    def where(self) -> str:
        """Return ``, line 3``, which follows a file's name; empty if the line is not known."""
        return f", line {self.line}" if self.line else ""


class _Loader(_Base):
    """Makes plain values only, and refuses equal keys, of which PyYAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue  # no key at all, which the constructor says
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
            # What a tag promises, the text does not hold: the 30th of February, or !!int x.
            kind = node.tag.rpartition(":")[2]
            text = f"{str(node.value)[:80]!r} cannot be read as {kind}; put it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error


def _refuse_set(loader: Any, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        "a set (!!set) has no order, so that it would be another one each time; write a list",
        node.start_mark,
    )


_Loader.add_constructor("tag:yaml.org,2002:set", _refuse_set)


def read_yaml(text: str) -> Any:
    """Read the one document of a YAML text as plain values.

    >>> read_yaml("tasks: [news, {name: mail}]")
    {'tasks': ['news', {'name': 'mail'}]}

    Raises:
        NotYaml: it is no YAML, repeats a key, refers to itself, is too deep, or stands for too many values.
    """
    try:
        _count(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or error)
        # An end that comes too early is noticed behind the last line.
        raise NotYaml(reason, min(mark.line + 1, len(text.splitlines()) or 1) if mark else None) from None
    except RecursionError:
        raise NotYaml(f"more than {DEEPEST} levels of lists and mappings") from None


def _count(text: str) -> None:
    """Refuse a text whose values are too many or too deep, aliases written out."""
    sizes: dict[str, int] = {}
    open_: list[str | None] = []
    begun: list[int] = []
    total = 0
    for event in yaml.parse(text, Loader=_Base):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in open_:
                raise NotYaml(f"the value {event.anchor!r} contains itself", line)
            # An alias costs what it stands for: nine levels of nine aliases are a short file, and hundreds of millions
            # of values.
            total += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append(event.anchor)
            begun.append(total)
            total += 1
            if len(open_) > DEEPEST:
                raise NotYaml(f"more than {DEEPEST} levels of lists and mappings", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop(), begun.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MOST:
            raise NotYaml(f"more than {MOST:,} values, with all aliases written out", line)
