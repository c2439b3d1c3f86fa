"""Imports methods, benchmarks and metrics of installed packages and of files, and records where they are from.

A package offers them by entry points of the groups ``everlora.methods``, ``everlora.benchmarks`` and
``everlora.metrics``, each of which names the module to import (or something in it). The module registers them with
`everlora.method`, `everlora.benchmark` and `everlora.metric`, as everlora's own modules do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path
from typing import Any

from everlora.core.errors import ConfigError, EverloraError

KINDS = ("method", "benchmark", "metric")
Origin = dict[str, str]

_broken: dict[str, list[str]] = {}
"""By group that was imported: a line per plug-in that could not be."""
ran: dict[str, Path] = {}
"""Files that were run, by the name of the module that each became."""


def offered(group: str) -> list[str]:
    """Import what installed packages offer in a group, the first time.

    Returns:
        A line per plug-in that could not be imported.
    """
    if group not in _broken:
        _broken[group] = []  # at once: a plug-in may look names up itself
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            try:
                point.load()
            except (Exception, SystemExit) as error:  # whatever a stranger's module does, ours go on working
                whose = f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""
                _broken[group].append(
                    f"the plug-in {point.name!r}{whose} ({point.value}) could not be loaded and is left out: "
                    f"{_reason(error)}"
                )
                logging.getLogger("everlora").warning("everlora: %s", _broken[group][-1])
    return list(_broken[group])


def may_offer(group: str) -> bool:
    """Return whether an installed package says that it has something for a group; nothing is imported."""
    return bool(entry_points(group=group))


def load(path: Path) -> None:
    """Run a Python file that registers methods, benchmarks or metrics, unless it has been run already.

    Raises:
        ConfigError: there is no such file, or it cannot be run.
    """
    path = path.resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(f"no plug-in {path}; name a Python file that uses @everlora.method, benchmark or metric")
    # With the path in it: two files of one name are two modules.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # sys.exit(0) in it would end us as if all were done
        # Half a module must not pass for one that was run.
        del sys.modules[name]
        raise ConfigError(f"the plug-in {path} could not be run: {_reason(error, path)}") from error
    ran[name] = path


def is_ours(module: str) -> bool:
    """Return whether a module is one of everlora's own."""
    return module.partition(".")[0] == __name__.partition(".")[0]


def origin(module: str) -> Origin | None:
    """Return where a module is from: package and version, or file and its hash; None for everlora's own."""
    if is_ours(module):
        return None
    for package in packages_distributions().get(module.partition(".")[0], []):
        return {"package": package, "version": version(package)}
    loaded = sys.modules.get(module)
    try:
        file = Path(inspect.getfile(loaded)) if loaded else None
    except TypeError:  # typed at a prompt
        file = None
    if file is None or not file.is_file():
        return {"module": module}
    return {"file": str(file.resolve()), "sha256": _sha(file)}


def file_origin(kind: str, name: str, file: Path) -> Origin:
    """Return the record of a file that a run was made with: what it is, its path, and the hash of its content."""
    return {kind: name, "file": str(file.resolve()), "sha256": _sha(file)}


def files() -> list[Origin]:
    """Return the plug-in files that this process has run, whether or not a run uses what they register."""
    there = [path for name, path in ran.items() if name in sys.modules and path.is_file()]
    return [file_origin("plugin", path.name, path) for path in there]


def missing(origins: Iterable[Mapping[str, str]]) -> str:
    """Say which plug-ins of these origins are not here, or are others by now; empty if nothing is amiss."""
    lines = []
    for where in origins:
        kind = next((kind for kind in (*KINDS, "plugin") if kind in where), "method")
        what = f"the {kind} {where.get(kind, '?')!r}"
        if "package" in where:
            package, then = where["package"], where["version"]
            now = _version(package)
            if now is None:
                lines.append(f"{what} is from the package {package} {then}, which is not installed here")
            elif now != then:
                lines.append(f"{what} is from the package {package} {then}, and {now} is installed here")
        elif "file" in where:
            file = Path(where["file"])
            runs = file.suffix == ".py"  # a benchmark may also be a YAML file, which is only read
            if not file.is_file():
                cure = "; pass --plugin FILE" if runs else ""
                lines.append(f"{what} is from the file {file}, which is not there{cure}")
            elif _sha(file) != where["sha256"]:
                lines.append(f"{what} is from the file {file}, which has changed since")
            elif runs and not any(_is(module, file) for module in list(sys.modules.values())):
                lines.append(f"{what} is from the file {file}; pass --plugin {file} (that runs its code)")
        else:
            lines.append(f"{what} was made in the module {where.get('module', '?')}")
    return "; ".join(lines)


def _is(module: Any, file: Path) -> bool:
    there = getattr(module, "__file__", None)
    return isinstance(there, str) and Path(there) == file


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _reason(error: BaseException, path: Path | None = None) -> str:
    """Describe an error in one line, with the line of the plug-in that it came from where that is known."""
    if isinstance(error, EverloraError):
        return str(error)
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        if path is not None and trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f", line {line}" if line is not None and path is not None else ""
    what = "it ends the process (sys.exit)" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return f"{what.removesuffix(': ')}{where}"
