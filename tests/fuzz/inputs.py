"""Inputs: valid ones with something changed, and ones that nobody writes by mistake."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import yaml
from hypothesis import strategies as st

ODD_TEXT = (
    "",
    " ",
    "\0",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\nb",
    "a\r\nb",
    "\u2028",
    "\u200b",
    "\ufeff",
    "é",
    "é",
    "名前",
    "\U0001f600",
    "%s%n",
    "{0}",
    "{text}",
    "[bold]x[/bold]",
    "[/]",
    "../..",
    "/",
    "~",
    "null",
    "NaN",
    "1e999",
    "x" * 3000,
    "yes",
    "on",
    "2023-02-30",
    "0x10",
    "-",
    "a b",
    "'",
    '"',
    "\\",
    "\ud800",
)
ODD = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63,
    10**40,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    1e308,
    [],
    {},
    [[]],
    [None],
    {"": ""},
    {"a": {"b": [1]}},
    ["a", "a"],
    [1, "a", None],
)
DATES = (datetime.date(2023, 1, 1), datetime.datetime(2023, 1, 1, 12))

texts = st.one_of(
    st.sampled_from(ODD_TEXT),
    st.text(max_size=12),
    st.text(alphabet="abcABC123 _-+=(),.:\x1b\n\"'{}[]é\u200b", max_size=20),
)
scalars = st.one_of(texts, st.sampled_from(ODD), st.integers(), st.floats(width=32))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
written = st.one_of(values, st.sampled_from(DATES), st.sampled_from([{1: 2}, {None: 1}, {True: "x"}, {1.5: 1}]))
"""Values that YAML can hold and JSON cannot among them."""


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nest of dicts and lists."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, valid: Any, other: st.SearchStrategy[Any] = values) -> Any:
    """A valid nest with one to three places dropped, replaced, renamed, doubled or wrapped."""
    value = copy.deepcopy(draw(st.sampled_from(valid)) if isinstance(valid, tuple) else valid)
    for _ in range(draw(st.integers(1, 3))):
        spots = places(value)
        if not spots:
            return copy.deepcopy(draw(other))
        *path, last = draw(st.sampled_from(spots))
        holder = value
        for step in path:
            holder = holder[step]
        act = draw(st.sampled_from(("replace", "replace", "drop", "rename", "wrap", "double", "add")))
        if act == "replace":
            holder[last] = copy.deepcopy(draw(other))
        elif act == "drop":
            del holder[last]
        elif act == "wrap":
            holder[last] = draw(st.sampled_from(([holder[last]], {"x": holder[last]})))
        elif act == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif isinstance(holder, dict):
            name = draw(texts)
            holder[name] = holder.pop(last) if act == "rename" else copy.deepcopy(draw(other))
    return value


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates (escaped) included."""
    return json.dumps(value, default=str).encode()


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=False, sort_keys=False).encode("utf-8", "surrogatepass")


SNIPPETS = (
    b"2023-02-30",
    b"!!int x",
    b"!!float x",
    b"!!timestamp x",
    b"!!binary x",
    b"!!bool x",
    b"!!null x",
    b"&a [*a]",
    b"&a {a: *a}",
    b"*nobody",
    b"!!python/object/apply:os.system [ls]",
    b"!!set {a, b}",
    b"!!omap [a: 1]",
    b"!local x",
    b"{a: b: c}",
    b"[",
    b"? [a]\n: b",
    b"{[a]: b}",
    b"{<<: x}",
    b"{<<: [{a: 1}]}",
    b"{=: x}",
    b"=",
    b"0o9",
    b"0x",
    b"1:99:99",
    b"-.inf",
    b".nan",
    b"1e5",
    b"2001-12-14t21:59:43.10-99:99",
    b"0000-00-00",
    b"!!str {a: b}",
    b"!!map x",
    b"|\n  x",
    b">-\n  x",
    b"%TAG x",
    b"--- x",
    b"\t x",
    b"'",
    b'"\\x1b[31m"',
    b'"\\0"',
    b'"\\ud800"',
    b"~: ~",
    b"!!pairs [a: b]",
    b"{0x1: a, 1: b}",
    b"&" + b"x" * 3000 + b" a",
    b"9" * 5000,
    b"[" * 200,
    b"{a: " * 200,
)
"""Values of YAML that safe_dump does not write."""


@st.composite
def spliced(draw: st.DrawFn, valid: Any) -> bytes:
    """YAML with a value, or a key, that only a hand can write."""
    text = as_yaml(draw(mutated(valid, st.just("@@"))))
    return text.replace(b"'@@'", draw(st.sampled_from(SNIPPETS)), draw(st.integers(1, 3)))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes | st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a piece cut off, cut out, changed, inserted or repeated."""
    data = bytearray(draw(whole) if isinstance(whole, st.SearchStrategy) else whole)
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        act = draw(st.sampled_from(("cut", "drop", "change", "insert", "repeat")))
        if act == "cut":
            del data[at:]
        elif act == "drop":
            del data[at : at + draw(st.integers(1, 9))]
        elif act == "change":
            data[at] = draw(st.integers(0, 255))
        elif act == "insert":
            data[at:at] = draw(
                st.one_of(st.binary(max_size=6), st.sampled_from((b"\n", b"\0", b"\xff", b'"', b"{", b"\x1b[2J")))
            )
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data)
