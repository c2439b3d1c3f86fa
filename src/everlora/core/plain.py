"""What JSON can hold, as types: for values that are plain data because they come from a file or go into one."""

from __future__ import annotations

from pydantic import JsonValue

Json = JsonValue
"""A text, number, truth value or null, or a list or object of such values."""
JsonObject = dict[str, Json]
"""What JSON calls an object, and YAML a mapping."""
