"""Wrong pairings of base model, tokenizer and learner: which of them are loaded. None may be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from everlora.core.errors import EverloraError
from everlora.learner.opened import create, load_learner
from everlora.learner.same_base import weights_of
from everlora.learner.verbs.learn import learn
from everlora.models import tiny
from everlora.runtime.progress import Progress
from torture.acts import FIRST, SETTINGS

FAMILIES = ("tiny-llama", "tiny-bert", "tiny-t5")
Change = Callable[[Path], object]


def written(folder: Path, name: str, change: Callable[[PreTrainedModel], object] = lambda model: None) -> Path:
    """Write a tiny model, changed in memory, with its tokenizer to a folder."""
    model, processor, _ = tiny.build(name, torch.float32)
    change(model)
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    return folder


def taught(place: Path, name: str) -> tuple[Path, Path]:
    """Make a learner of one task on a base model in a folder; return both folders."""
    base = written(place / "base", name)
    create(place / "learner", {**SETTINGS, "model": str(base)})
    learn(place / "learner", FIRST, progress=Progress())
    return place / "learner", base


def other_seed(seed: int) -> Callable[[PreTrainedModel], None]:
    """Make a model's weights those of another seed."""

    def change(model: PreTrainedModel) -> None:
        draws = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.02)

    return change


def entry(file: str, **entries: object) -> Change:
    """Change entries of a JSON file of a base model."""

    def change(folder: Path) -> None:
        there = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps({**there, **entries}))

    return change


def flipped(at: float) -> Change:
    """Flip a bit of the weights, that far into the file."""

    def change(folder: Path) -> None:
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[int(len(data) * at)] ^= 1
        (folder / "model.safetensors").write_bytes(bytes(data))

    return change


def in_bfloat16(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file, metadata={"format": "pt"})


def words_exchanged(folder: Path) -> None:
    """Exchange two words of the tokenizer."""
    content = json.loads((folder / "tokenizer.json").read_text())
    words: dict[str, int] = content["model"]["vocab"]
    a, b = sorted(words, key=words.__getitem__)[300:302]
    words[a], words[b] = words[b], words[a]
    (folder / "tokenizer.json").write_text(json.dumps(content))


CHANGES: dict[str, Change] = {
    "a bit of the first weights": flipped(0.5),
    "a bit of the last weights": flipped(0.999),
    "weights in bfloat16": in_bfloat16,
    "config.json": entry("config.json", initializer_range=0.5),
    "words of the tokenizer": words_exchanged,
    "settings of the tokenizer": entry("tokenizer_config.json", add_prefix_space=True),
    "more tokens": entry("added_tokens.json", extra=700),
    "a chat template": lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
}


def wrong_bases(name: str, sound: Path) -> Iterator[tuple[str, Change]]:
    """Give what may stand in the place of a base model: functions that write it to a folder that is not there."""
    for seed in range(3):
        yield f"weights of seed {seed}", partial(written, name=name, change=other_seed(seed))
    for other in (*FAMILIES, "tiny-vit"):
        if other != name:
            yield f"{other} in its place", partial(written, name=other)
    for what, change in CHANGES.items():
        yield what, partial(_changed, sound, change)


def _changed(sound: Path, change: Change, folder: Path) -> None:
    shutil.copytree(sound, folder)
    change(folder)


def pairings(place: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Give learners whose base model, or what is known of it, is another one now."""
    for name in FAMILIES:
        learner, base = taught(place / name, name)
        sound = place / name / "sound"
        shutil.copytree(base, sound)
        for what, write in wrong_bases(name, sound):
            shutil.rmtree(base)
            write(base)
            yield f"{name}: {what}", learner, {}
        shutil.rmtree(base)
        shutil.copytree(sound, base)
        other_type = "bfloat16" if weights_of(learner) == "float32" else "float32"
        yield f"{name}: loaded in {other_type}", learner, {"dtype": other_type}
        note, there = learner / "environment.json", (learner / "environment.json").read_bytes()
        note.unlink()
        yield f"{name}: nothing known of the base model", learner, {}
        note.write_bytes(there)
        assert loads(learner, {}), "the right pairing is loaded"


def loads(learner: Path, here: dict[str, Any]) -> bool:
    """Return whether a learner is loaded."""
    try:
        load_learner(learner, here, read_only=True)
    except EverloraError:
        return False
    return True


__all__ = ["loads", "pairings"]
