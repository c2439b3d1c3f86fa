"""Speaks to the trackers of transformers where a callback cannot: pictures, tables, places, and the end of a run."""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LOGS = "logs"
"""Where TensorBoard writes, inside a learner's folder, unless its own variable names another place."""
RUN_ID = "wandb-run-id"


def name_place(tracker: Any, folder: Path | None) -> None:
    """Let a tracker that writes files write them to a learner's folder; a Trainer's own is gone after each task.

    Of Weights & Biases the folder keeps the id of its run, so that a later process goes on with that one.
    """
    if folder is None:
        return
    if getattr(tracker, "logging_dir", "") is None:
        tracker.logging_dir = str(folder / LOGS)
    module = getattr(tracker, "_wandb", None)
    if module is not None and module.run is None and "WANDB_RUN_ID" not in os.environ:
        project = os.environ.get("WANDB_PROJECT", "huggingface")  # as the callback has it
        module.init(project=project, name=folder.name, id=_run_id(folder / LOGS / RUN_ID), resume="allow")


def _run_id(file: Path) -> str:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(6), encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def send_scalars(tracker: Any, logs: Mapping[str, float], step: int) -> bool:
    """Send numbers under their own names to one of the four trackers that are known; return whether it is one."""
    if (writer := getattr(tracker, "tb_writer", None)) is not None:
        for name, value in logs.items():
            writer.add_scalar(name, value, step)
        return True
    for attribute in ("_wandb", "_trackio"):
        if (module := getattr(tracker, attribute, None)) is not None:
            module.log({**logs, "train/global_step": step})
            return True
    if (module := getattr(tracker, "_ml_flow", None)) is not None:
        # Names of tasks may be anything; MLflow takes letters, digits and a few signs.
        module.log_metrics({re.sub(r"[^\w\-. /]", "_", name): value for name, value in logs.items()}, step=step)
        return True
    return False


def send_matrix(
    tracker: Any, tasks: Sequence[str], rows: Sequence[Mapping[str, float]], picture: bytes | None, step: int
) -> None:
    """Send an accuracy matrix to a tracker as a table, and as a picture where there is one and Pillow.

    Args:
        tracker: a callback of transformers; one that is none of the four known is sent nothing.
        tasks: names, in order.
        rows: scores after each stage, percent by task.
        picture: PNG.
        step: at which the run ends.
    """
    if not rows or not tasks:
        return
    heads = ["after", *tasks]
    cells = [[name, *(row.get(task) for task in tasks)] for name, row in zip(tasks, rows, strict=False)]
    image = _image(picture)
    if (writer := getattr(tracker, "tb_writer", None)) is not None:
        writer.add_text("cl/matrix", _markdown(heads, cells), step)
        if image is not None:
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            writer.add_image("cl/matrix", pixels.view(image.height, image.width, 3), step, dataformats="HWC")
    for name in ("_wandb", "_trackio"):
        if (module := getattr(tracker, name, None)) is not None:
            pictures = {} if image is None else {"cl/matrix_picture": module.Image(image)}
            module.log({"cl/matrix": module.Table(columns=heads, data=cells), **pictures})
    if (module := getattr(tracker, "_ml_flow", None)) is not None:
        columns = {head: [cell[k] for cell in cells] for k, head in enumerate(heads)}
        module.log_table(data=columns, artifact_file="cl/matrix.json")
        if image is not None:
            module.log_image(image, artifact_file="cl/matrix.png")


def end_run(tracker: Any) -> None:
    """End a run of Weights & Biases, whose callback leaves it open, so that the next learner gets one of its own."""
    if (module := getattr(tracker, "_wandb", None)) is not None:
        module.finish()


def _image(picture: bytes | None) -> Any:
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image.open(io.BytesIO(picture)).convert("RGB") if picture is not None else None


def _markdown(heads: Sequence[str], cells: Sequence[Sequence[str | float | None]]) -> str:
    """Return a table for TensorBoard, which shows Markdown.

    >>> _markdown(["after", "a"], [["a", 12.345]]).splitlines()[-1]
    '| a | 12.3 |'
    """
    lines = [list(heads), ["---"] * len(heads)]
    lines += [
        ["" if cell is None else cell if isinstance(cell, str) else f"{cell:.1f}" for cell in row] for row in cells
    ]
    return "\n".join("| " + " | ".join(word.replace("|", "\\|") for word in line) + " |" for line in lines)


@torch.no_grad()
def update_norm(model: Any) -> float | None:
    """Return the Frobenius norm of all LoRA updates of a model of PEFT; None where it trains none.

    ‖B A‖² = tr(BᵀB AAᵀ), so that no matrix of the weight's size is made.
    """
    if not isinstance(model, nn.Module):
        return None
    total, found = 0.0, False
    for module in (one for one in model.modules() if hasattr(one, "lora_A") and hasattr(one, "scaling")):
        layer: Any = module
        for name in layer.lora_A:
            A, B = (_matrix(pair[name]) for pair in (layer.lora_A, layer.lora_B))
            if name in getattr(layer, "lora_E", {}):  # the diagonal of the form U Σ V
                A = A * layer.lora_E[name].float()
            square = float(((B.mT @ B) * (A @ A.mT)).sum())
            total, found = total + float(layer.scaling[name]) ** 2 * square, True
    return total**0.5 if found else None


def _matrix(factor: Any) -> Tensor:
    weight: Any = factor.weight if isinstance(factor, nn.Module) else factor
    found: Tensor = weight.detach().float()
    return found
