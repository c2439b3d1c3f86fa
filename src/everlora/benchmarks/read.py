"""Reads a benchmark from a YAML file, whose keys `everlora.benchmarks.facts` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everlora.benchmarks.facts import make_benchmark
from everlora.core.benchmark import Benchmark
from everlora.core.errors import ConfigError
from everlora.runtime.safe_yaml import NotYaml, read_yaml


def read_benchmark(path: Path) -> Benchmark:
    """Read the benchmark that a YAML file describes; its name is the file's.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or a fact cannot be used.
    """
    content = _content(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: wanted a mapping with the keys title and orders, found {type(content).__name__}")
    return make_benchmark(path.stem, content, where=str(path))


def is_benchmark_file(path: Path) -> bool:
    """Return whether a file is the YAML of a benchmark, with ``orders``; a list of tasks has none."""
    try:
        content = _content(path)
    except ConfigError:  # whoever reads it says what is wrong
        return False
    return isinstance(content, dict) and "orders" in content


def _content(path: Path) -> Any:
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except NotYaml as error:
        raise ConfigError(f"{path}{error.where}: not sound YAML ({error})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not sound YAML ({error})") from None
