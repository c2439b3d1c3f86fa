"""Draws methods on models of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import find, read
from everlora.analysis.comparison import Row
from everlora.analysis.tables import compare
from everlora.core.errors import ConfigError
from everlora.report.figures import figure
from everlora.report.page import Figure
from everlora.report.read import oa, rows_of
from everlora.report.swept import HOW, side_by_side


@figure(
    "model-scale",
    paper="LB-CL",
    where="Impact of Model Scale: O-LoRA and LB-CL on T5-base and T5-large",
    title="Methods on models of different sizes",
    needs="runs of the same methods and tasks that differ in --model",
)
def model_scale(paths: Sequence[Path]) -> Figure:
    """Draw overall accuracy and backward transfer by model and method; nothing is tested across models."""
    found = [read(path) for path in find(paths)]
    models = list(dict.fromkeys(run.protocol.model for run in found))
    if len(models) < 2:
        raise ConfigError(f"all runs are of one model, {models[0]}; make some with another --model")
    if len({tuple(sorted(run.answers.tasks)) for run in found}) > 1:
        raise ConfigError("runs of different tasks cannot be set against each other; give the same --tasks")
    rows: dict[str, Row] = {}
    for model in models:
        table = compare([run for run in found if run.protocol.model == model])
        ranked = sorted(rows_of(table), key=oa)
        rows |= {f"{model}, {row.method}": row for row in ranked}
    how = f"{HOW} Each model reads the same rows in its own way, so that nothing is tested between models."
    return side_by_side("model-scale", "Methods on models of different sizes", rows, how)
