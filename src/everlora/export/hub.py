"""Puts a learner on the Hub: its adapter, card and records; never the rows that it keeps, unless somebody says so."""

from __future__ import annotations

from pathlib import Path

from everlora.archive.exchange import UNDONE
from everlora.archive.folder import read_run, stages
from everlora.archive.parity import PARITY
from everlora.archive.schema import Record
from everlora.core.errors import ConfigError, FolderError
from everlora.runtime import hub

ROWS = ("rehearsal.jsonl", "tests.jsonl", "probes.jsonl", "predictions.jsonl", "forecast.safetensors")
"""Files that hold rows of somebody's data, answers to them, or sums over so few that they might be guessed."""
OF_TASKS = ("MANIFEST", "history.jsonl")
"""Files that say nothing without the folders of the tasks."""


class Pushed(Record):
    """Holds what was uploaded, or would be.

    Attributes:
        repo: on the Hub.
        files: paths in it.
        bytes: of all of them.
        url: of the commit; None of a dry run.
    """

    repo: str
    files: list[str]
    bytes: int
    url: str | None = None


def files_to_push(path: Path, *, tasks: bool, rows: bool) -> list[Path]:
    """List what of a learner's folder is uploaded, relative to it.

    Args:
        path: the folder.
        tasks: with the folders of its tasks.
        rows: with the rows of data that it keeps, and what it answered.
    """
    found = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    shown = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    # What was taken back is no part of the learner; a parity file gives back rows that are not sent themselves.
    own = [file for file in shown if file.parts[0] != UNDONE and (file.name != PARITY or (tasks and rows))]
    wanted = [file for file in own if tasks or (len(file.parts) == 1 and file.name not in OF_TASKS)]
    return [file for file in wanted if rows or file.name not in ROWS]


def push(
    path: Path,
    repo: str,
    *,
    tasks: bool = False,
    rows: bool = False,
    private: bool = True,
    dry_run: bool = False,
    because: str | None = None,
) -> Pushed:
    """Upload a learner's folder to a model repository of the Hub.

    Args:
        path: the folder.
        repo: ``owner/name``; it is made if it is not there.
        tasks: with the folders of its tasks, so that it can be gone on with elsewhere.
        rows: with the rows of data that it keeps, and what it answered.
        private: whether a repository that is made is private.
        dry_run: say what would be done; nothing is sent.
        because: the message of the commit.

    Raises:
        ConfigError: no such name of a repository, or the Hub refuses.
        FolderError: the folder holds no learned task, or is damaged.
    """
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"{repo!r} is no name of a repository; write owner/name")
    read_run(path)
    if not stages(path):
        raise FolderError(f"{path} holds no learned task yet; teach it one first")
    files = files_to_push(path, tasks=tasks, rows=rows)
    size = sum((path / file).stat().st_size for file in files)
    found = Pushed(repo=repo, files=[file.as_posix() for file in files], bytes=size)
    if dry_run:
        return found
    if why := hub.unreachable():
        raise ConfigError(f"the Hub cannot be reached ({why}); --dry-run says what would be sent")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=path,
            allow_patterns=found.files,
            commit_message=because or f"{path.resolve().name}, {len(stages(path))} tasks",
        )
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the Hub refuses {repo}: {reason}") from error
    return found.model_copy(update={"url": commit.commit_url})
