"""Checks what of the message of a chat that is learned can be learned."""

from __future__ import annotations

from collections.abc import Mapping

from everlora.core.errors import DataError


def check_learned(message: Mapping[str, object], at: str) -> None:
    """Refuse a learned message of which more than its content would have to be learned, or nothing.

    Raises:
        DataError: it has tool calls, reasoning or the like beside its content, or a weight other than 1.
    """
    for key, part in message.items():
        if key not in ("role", "content", "name", "weight") and part not in (None, "", [], {}):
            raise DataError(
                f"{at}: the last message has {key!r} beside its content, and only the content is learned; write it "
                f"into the content as the model's chat template would, or take it out"
            )
    if (weight := message.get("weight")) is not None and weight != 1:
        raise DataError(
            f"{at}: the last message has the weight {weight!r}, and what is learned counts as 1; leave the row out"
        )
