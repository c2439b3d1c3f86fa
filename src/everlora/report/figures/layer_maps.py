"""Draws where in a model earlier tasks matter to a new one: LB-CL's sensitivity, and Fisher information, by layer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text

if TYPE_CHECKING:
    import altair

SAMPLES = 8
"""Rows of each new task that are looked at: LB-CL's seed samples."""
MEASURES = {"sensitivity": "sensitivity of earlier triplets", "fisher": "Fisher information"}


@figure(
    "layer-maps",
    paper="LB-CL",
    where="Which Layers Matter Most: sensitivity and Fisher information over layers",
    title="Where earlier tasks matter to a new one",
    needs="runs with LoRA adapters in all layers, of a benchmark; their model is loaded",
    reads="model",
)
def layer_maps(paths: Sequence[Path]) -> Figure:
    """Draw both measures as maps of blocks and modules, as means over the tasks behind the first."""
    from everlora.analysis.answers import find

    rows = [row for path in find(paths) for row in _measured(path)]
    if not rows:
        raise ConfigError("no run has a second task, to which the first could matter")
    numbers = [
        [text(str(r["model"])), text(f"{r['stack']} {r['block']}"), text(str(r["kind"])),
         Cell(number(_value(r, "sensitivity"))), Cell(number(_value(r, "fisher")))]
        for r in rows
    ]  # fmt: skip
    return Figure(
        "layer-maps",
        "Where earlier tasks matter to a new one",
        charts.svg(_drawn(rows), "Sensitivity and Fisher information by block and module"),
        f"Means over the tasks behind the first, on {SAMPLES} training rows of each, with the earlier tasks in the "
        "model. Sensitivity: |w ∂L/∂w| of the triplets of earlier updates. Fisher: mean square of ∂L/∂W over rows. "
        "Shaded by the largest value of a model; block 0 reads the text first.",
        Table(["model", "block", "module", "sensitivity", "Fisher"], numbers),
    )


def _measured(path: Path) -> list[charts.Row]:
    """Measure one run; nothing of a run of one task."""
    from everlora.analysis.layer_maps import module_maps
    from everlora.learner.reopened import reopen

    run = reopen(path)
    family, later = run.learner.base.family, [stage for stage in run.stages if len(stage.before)]
    sums: dict[tuple[str, int, str], list[float]] = {}
    for stage in later:
        drawn = random.Random(run.learner.spec.seed).sample(
            list(stage.task.train), min(SAMPLES, len(stage.task.train))
        )
        rows = [(row, stage.task) for row in drawn]
        for one in module_maps(run.model_with(stage.before), family, list(stage.before), rows):
            both = sums.setdefault((one.stack, one.block, one.kind), [0.0, 0.0])
            both[0] += one.sensitivity / len(later)
            both[1] += one.fisher / len(later)
    model = run.learner.spec.model
    return [
        {"model": model, "stack": stack, "block": block, "kind": kind, "sensitivity": a, "fisher": b}
        for (stack, block, kind), (a, b) in sums.items()
    ]


def _drawn(rows: Sequence[charts.Row]) -> altair.VConcatChart:
    """Draw a line of maps for each stack of each model, one map for each measure."""
    alt = charts.alt()
    lines: list[altair.HConcatChart] = []
    for model, stack in sorted(
        {(str(row["model"]), str(row["stack"])) for row in rows}, key=lambda one: (one[0], one[1] != "encoder")
    ):
        own = [row for row in rows if (row["model"], row["stack"]) == (model, stack)]
        kinds = list(dict.fromkeys(str(row["kind"]) for row in own))
        maps: list[altair.Chart] = []
        for key, title in MEASURES.items():
            # Of a model's stacks together, so that an encoder and a decoder can be set against each other.
            most = max(_value(row, key) for row in rows if row["model"] == model) or 1.0
            shaded = [{**row, "share": _value(row, key) / most} for row in own]
            base = alt.Chart(charts.data(shaded)).encode(
                x=alt.X("block:O", title=f"block of {model}, {stack}", axis=alt.Axis(labelAngle=0)),
                y=alt.Y("kind:N", sort=kinds, title=None, axis=alt.Axis(labels=not maps, labelLimit=220)),
            )
            scale = alt.Scale(domain=[0, 1], range=[charts.LIGHT, charts.DEEP])
            cells = base.mark_rect().encode(color=alt.Color("share:Q", scale=scale, legend=None))
            maps.append(cells.properties(width=240, height=alt.Step(22), title=title))
        lines.append(alt.hconcat(*maps, spacing=20))
    made: altair.VConcatChart = alt.vconcat(*lines, spacing=20)
    return made


def _value(row: charts.Row, key: str) -> float:
    return float(str(row[key]))
