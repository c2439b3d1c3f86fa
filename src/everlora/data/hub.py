"""Reads data sets from the Hugging Face hub, or says in one line why that cannot be done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from everlora.core.errors import DataError, EverloraError
from everlora.data.rows import Table, class_names
from everlora.runtime import hub


def load_split(path: str, config: str | None, split: str, *, instead: str) -> Any:
    """Load one split as a `datasets.Dataset`. Never runs code from the hub.

    Args:
        path: the data set's id, ``owner/name``.
        config: its configuration, if it has several.
        split: the split's name.
        instead: what to do when the hub cannot be reached, for the message.

    Raises:
        DataError: the hub cannot be reached, or it has no such data set, configuration or split.
    """
    import datasets

    place = f"{path} ({', '.join(filter(None, (config, split)))})"
    _probe(place, instead)
    try:
        return datasets.load_dataset(path, config, split=split)
    except EverloraError:
        raise
    except (ConnectionError, OSError) as error:
        # `datasets` also reports a missing or private data set with subclasses of OSError.
        known = isinstance(error, datasets.exceptions.DatasetNotFoundError)
        what = "there is no such data set, or it is private" if known else "the hub cannot be reached"
        raise DataError(f"cannot load {place} from the hub: {what} ({_first_line(error)}); {instead}") from error
    except Exception as error:  # whatever a library far away makes of a bad answer, the user needs one line
        raise DataError(f"cannot load {place} from the hub: {_first_line(error)}; {instead}") from error


def load_table(path: str, config: str | None, split: str, *, instead: str) -> Table:
    """Load one split with all its rows; see `load_split`."""
    data = load_split(path, config, split, instead=instead)
    return as_table(data, f"{path} {split}")


def as_table(data: Any, where: str, numbers: Iterable[int] | None = None) -> Table:
    """Make a table of a `datasets.Dataset`; ``numbers`` are its rows' numbers where it is a selection."""
    counted = range(1, len(data) + 1) if numbers is None else list(numbers)
    return Table(where=where, rows=list(data), numbers=counted, class_names=class_names(data.features))


def _probe(place: str, instead: str) -> None:
    if why := hub.unreachable():
        raise DataError(f"cannot load {place}: {why}; {instead} (HF_HUB_OFFLINE=1 uses what an earlier run fetched)")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
