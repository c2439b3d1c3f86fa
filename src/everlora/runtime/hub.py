"""Finds out whether the Hugging Face hub answers.

One request decides: the hub's own client would try six times over half a minute before it fails.
"""

from __future__ import annotations

PROBE_SECONDS = 5.0
"""How long the hub may take to answer at all before it counts as unreachable."""


def unreachable() -> str | None:
    """Return a sentence that says why the hub cannot be reached; None if it can, or if offline mode is set."""
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return None  # then loaders look into their cache and fail at once
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # the HTTP library's own classes, which differ between versions of huggingface_hub
        text = str(error).strip() or type(error).__name__
        return f"the hub at {constants.ENDPOINT} cannot be reached ({text.splitlines()[0][:200]})"
    return None
