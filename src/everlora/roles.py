"""Offers all that one needs to write a part: roles, abilities, and the values that parts are given and return.

    role                  what a part does                                           what it must define
    ────────────────────  ─────────────────────────────────────────────────────────  ────────────────────────────────
    `WeightPenalty`       pulls on the weights, with a gradient in closed form       strength, prepare, value_and_grad
    `OutputPenalty`       compares answers with those given when the task began      strength, on, per_position
    `GradientTransform`   shapes the gradient, or the step that was taken            acts_on, prepare, shape
    `Initialiser`         starts a new adapter from what earlier tasks learned       covers, start
    `Rehearsal`           chooses rows of earlier tasks that are learned again       choose
    `StepRule`            moves the weights after a block of steps                   inner, outer, before, after
    `Merge`               makes one weight of all updates, if not their sum          train, infer, merge

    ability               what a part can do beside its role                         what it must define
    ────────────────────  ─────────────────────────────────────────────────────────  ────────────────────────────────
    `HasMemory`           carries tensors of its own from task to task               remember, memory_bytes
    `NeedsEvidence`       looks at a few rows: gradients, Fisher information,        evidence, samples
                          second moments of what a module reads, or curvature
    `NeedsActivations`    sees how strongly outputs answered in this step            look, probe
    `HasEnergy`           weighs entries by an energy of the past                    weigh
    `PredictsRise`        says by how much earlier tasks' losses will rise           earlier_tasks
    `HasCapacity`         counts the directions that it leaves                       free
    `GrowsWithPast`       extends its constants by one task, and makes none anew    extend
    `ReconstructsPast`    has a memory that stands for the sum of all updates        reconstruct
    `BoundsMemoryError`   tells how far off what it remembers is at most             error_bound
    `PostProcesses`       changes what answers once a task has ended                 finish
    `GenerativeReplay`    lets the model write rows of earlier tasks                 cue, written, read, …

    value                 what it is
    ────────────────────  ────────────────────────────────────────────────────────────────────────────────────────
    `LowRank`, `Weights`  what is trained at one module; `Updates` are those of all modules by name
    `Adapter`             the declaration of a form of adapter, which a method carries; `Consolidator`, how finished
                          updates join the past
    `Default`             in the annotation of a method's option: where its default value is from

A part is a frozen, keyword-only dataclass that inherits one role and any abilities, and carries a ``name`` and, if it
has any, its `Needs`. Its class is checked when it is made: whatever is forgotten or misspelt is one sentence then.
Everything here is stable; ``examples/mean_pull.py`` and ``examples/feature_projection.py`` are whole methods of less
than a hundred lines.
"""

from everlora.core import roles as _roles
from everlora.core.adapter import Adapter, Consolidator
from everlora.core.defaults import Default
from everlora.core.errors import ConfigError
from everlora.core.roles import *  # noqa: F403
from everlora.core.updates import LowRank, Updates, Weights

__all__ = ["Adapter", "ConfigError", "Consolidator", "Default", "LowRank", "Updates", "Weights"]
__all__ += _roles.__all__
