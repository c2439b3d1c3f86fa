"""Defines, as types, what JSON can hold: for values that are plain data because they come from a file or go to one."""

from __future__ import annotations

from typing import TypeAlias

# pydantic has the same type, but listings read benchmarks without importing it.
Json: TypeAlias = "dict[str, Json] | list[Json] | str | bool | int | float | None"
"""A text, number, truth value or null, or a list or object of such values."""
JsonObject: TypeAlias = "dict[str, Json]"
"""What JSON calls an object, and YAML a mapping."""
