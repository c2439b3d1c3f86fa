"""Defines the method, a value of parts in roles; `compose` joins methods and refuses what excludes one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.description import MethodDescription, PartDescription
from everlora.core.errors import ConfigError
from everlora.core.joining import agree, either, host_of, in_turn, joined, one_prediction
from everlora.core.roles import (
    Budget,
    GradientTransform,
    HasMemory,
    Initialiser,
    Merge,
    NeedsActivations,
    OutputPenalty,
    PredictsRise,
    Rehearsal,
    StepRule,
    WeightPenalty,
    check_strength,
)
from everlora.core.roles.contract import check_part

Regime = Literal["sequence", "joint", "frozen"]
Mixing = Literal["proportional", "equal"]
Group = Literal["replay-free", "replay", "task id"]
Part = WeightPenalty | OutputPenalty | GradientTransform | Initialiser | Rehearsal | StepRule | Merge
_ROLES = {"penalties": WeightPenalty, "outputs": OutputPenalty, "transforms": GradientTransform,
          "initialiser": Initialiser, "rehearsal": Rehearsal, "rule": StepRule, "merge": Merge}  # fmt: skip
"""The role of the part or parts that each field of a method takes."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Composes parts into what a run does about forgetting.

    >>> from everlora.parts import Mean
    >>> Method(name="mean", merge=Mean()).group
    'replay-free'

    Attributes:
        name: as typed; joined by ``+`` for compositions.
        regime: ``sequence`` learns task after task, ``joint`` all at once (multi-task), ``frozen`` nothing.
        adapter: what is trainable.
        consolidator: how a finished task joins the past.
        initialiser: where a fresh adapter starts, if not where PEFT starts it.
        penalties: what pulls on the weights; they add up, so their order has no meaning.
        outputs: what compares answers with those given when the task began.
        transforms: what shapes the gradient or the step, in this order.
        rehearsal: what is kept of earlier tasks' rows and learned again.
        rule: what blocks of steps on new and on rehearsed rows are made into.
        merge: what the tasks' updates are made into, if not their sum.
        plugin: it joins other methods; its adapter and consolidator are used only where it is the whole method.

    Raises:
        ConfigError: parts that cannot stand together; the message says which and why.
    """

    name: str
    regime: Regime = "sequence"
    adapter: Adapter = field(default_factory=Adapter)
    consolidator: Consolidator = field(default_factory=Consolidator)
    initialiser: Initialiser | None = None
    penalties: tuple[WeightPenalty, ...] = ()
    outputs: tuple[OutputPenalty, ...] = ()
    transforms: tuple[GradientTransform, ...] = ()
    rehearsal: Rehearsal | None = None
    rule: StepRule | None = None
    mixing: Mixing = "proportional"
    """How often rows of tasks that are learned at once are shown: once each, or every task equally often."""
    merge: Merge | None = None
    plugin: bool = field(default=False, compare=False)
    families: tuple[str, ...] = field(default=(), compare=False)
    """The model families on which it makes sense; empty for all."""
    replay: bool = field(default=False, compare=False)
    """Whether a method that it was parsed from declares that it re-uses data of earlier tasks."""
    expression: str = field(default="", compare=False)
    """The expression that it was parsed from, options included."""

    def __post_init__(self) -> None:
        for name, role in _ROLES.items():
            held = getattr(self, name)
            if not isinstance(held, tuple) and isinstance(getattr(Method, name), tuple):
                raise ConfigError(f"the field {name!r} of a method takes a tuple of parts, not {held!r}")
            for part in held if isinstance(held, tuple) else filter(None, (held,)):
                check_part(part, name, role)
        for penalty in self.penalties:
            check_strength(penalty.name, penalty.strength)
            if isinstance(penalty.strength, Budget) and not any(isinstance(p, PredictsRise) for p in self.penalties):
                raise ConfigError(
                    f"the budget of {penalty.name!r} is held against a prediction, and no part of {self.name!r} makes "
                    f"one; give it KroneckerCurvature(lam=0.0) of everlora.parts, too, or set the strength otherwise"
                )
        for part in self.parts():
            if self.regime != "sequence" and not (isinstance(part, Rehearsal) and part.rehearsed_only):
                raise ConfigError(f"{part.name!r} cannot act in {self.name!r}, which does not learn task after task")
            if self.adapter.policy == "continue" and part.needs.fresh_adapter:
                raise ConfigError(
                    f"{part.name!r} needs a fresh adapter for every task, and {self.name!r} trains one adapter on and "
                    f"on; take a method with new adapters (inclora, o-lora, ella, …)"
                )
            if self.adapter.policy == "new" and part.needs.continued_adapter:
                raise ConfigError(
                    f"{part.name!r} holds what is trained where earlier tasks left it, and {self.name!r} trains a "
                    f"fresh adapter for every task; take a method that trains one on and on (seqlora, seqft, …)"
                )
            if self.independent_tasks and isinstance(part, HasMemory):
                raise ConfigError(
                    f"{part.name!r} remembers earlier tasks for later ones, and in {self.name!r} each stands alone; "
                    f"take a method that goes on from them (seqlora, inclora, o-lora, …)"
                )
            if not self.adapter.low_rank and not part.needs.any_form:
                raise ConfigError(
                    f"{part.name!r} works on low-rank updates, and {self.name!r} trains none; take a method with "
                    f"adapters (seqlora, inclora, o-lora, ella, …)"
                )
            if not self.adapter.rows_answer and isinstance(part, NeedsActivations):
                raise ConfigError(
                    f"{part.name!r} looks at the outputs that the rows of what is trained make, and in {self.name!r} "
                    f"they make none; take a method with LoRA adapters (seqlora, o-lora, …) or all weights (seqft)"
                )
            if self.adapter.form != "svd" and part.needs.svd_form:
                raise ConfigError(f"{part.name!r} works on triplets U Σ V; add a method in SVD form (nlnb-cl, …)")
        if self.rule and not self.rehearsal:
            raise ConfigError(f"{self.rule.name!r} works on blocks with rehearsed rows, and {self.name!r} keeps none")
        if self.mixing != "proportional" and self.regime != "joint":
            raise ConfigError(f"{self.name!r} learns task after task; mixing={self.mixing} is for all tasks at once")
        if self.merge and self.consolidator.rule != "sum":
            raise ConfigError(
                f"{self.merge.name!r} merges the updates of the tasks, and {self.name!r} "
                + ("has only one adapter" if self.consolidator.rule == "continue" else "keeps them apart by task id")
                + "; take a method with new adapters that are summed (inclora, o-lora, ella, …)"
            )

    def parts(self) -> Iterator[Part]:
        """Return all parts that do something, in the order in which they act."""
        yield from filter(None, (self.initialiser,))
        yield from self.penalties
        yield from self.outputs
        yield from self.transforms
        yield from filter(None, (self.rehearsal, self.rule))
        yield from filter(None, (self.merge,))

    @property
    def remembering(self) -> tuple[HasMemory, ...]:
        """Return the parts that carry something of their own from task to task."""
        return tuple(part for part in self.parts() if isinstance(part, HasMemory))

    @property
    def task_id_at_inference(self) -> bool:
        return self.consolidator.rule == "keep"

    @property
    def group(self) -> Group:
        """Return its section in every table: what a method may use decides what it can be compared with."""
        if self.task_id_at_inference:
            return "task id"
        return "replay" if self.sees_again else "replay-free"

    @property
    def sees_again(self) -> bool:
        """Return whether rows of earlier tasks are trained on again; rows that the model writes do not count."""
        kept = self.rehearsal is not None and self.rehearsal.needs.stored_rows
        return self.replay or kept or self.regime == "joint"

    @property
    def independent_tasks(self) -> bool:
        """Return whether what a task learns depends on no earlier task, as if each were the first."""
        own = self.adapter.adds or self.adapter.whole_model  # a chain of prompts needs the earlier ones
        return self.consolidator.rule == "keep" and own

    @property
    def policy(self) -> str:
        """Return the adapter policy in words: what trains, and where the past stands."""
        if self.regime == "frozen":
            return "none"
        if self.regime == "joint":
            return f"one {self.adapter.noun}, all tasks at once"
        if self.merge:
            merged = f"a fresh adapter per task, merged by {self.merge.name} for answers"
            return f"new + merged: {merged}" if self.merge.infer == "merged" else f"new + folded: {merged}"
        return {
            "continue": f"continue: one {self.adapter.noun} for all tasks",
            "sum": f"new + folded: a fresh {self.adapter.noun} per task on the folded sum of the past",
            "keep": f"new + kept: a fresh {self.adapter.noun} per task, chosen by task id",
        }[self.consolidator.rule]

    def named(self, name: str) -> Method:
        """Return the same composition under its own name."""
        return replace(self, name=name, expression="")

    def describe(self) -> MethodDescription:
        """Describe the composition for the run's record, its hash, and the method's card."""
        filled: dict[str, tuple[Any, ...]] = {
            "initialiser": (self.initialiser,),
            "penalties": self.penalties,
            "transforms": self.transforms,
            "merge": (self.merge,),
            "outputs": self.outputs,
            "rehearsal": (self.rehearsal,),
            "rule": (self.rule,),
        }
        return MethodDescription(
            name=self.name,
            regime=self.regime,
            adapter={name: value for name, value in asdict(self.adapter).items() if value != ""},
            consolidator=self.consolidator.rule,
            mixing=self.mixing,
            parts=tuple(
                PartDescription.of(role, part) for role, parts in filled.items() for part in parts if part is not None
            ),
        )


def compose(*methods: Method) -> Method:
    """Join methods into one.

    >>> from everlora import compose, parse
    >>> compose(parse("ella"), parse("migu")).name
    'ella+migu'

    Single roles (regime, adapter policy, consolidator, initialiser, merge) must agree where both sides fill them;
    penalties and transforms are joined without duplicates. SVD form wins: what acts on pairs acts on triplets too.

    Raises:
        ConfigError: two methods claim a single role differently, or hold one part with different settings.
    """
    if not methods:
        raise ConfigError("a composition needs at least one method")
    first, *rest = methods
    for other in rest:
        agree(first, other, "regime", first.regime, other.regime)
        adapter, consolidator = host_of(first, other)
        first = replace(
            first,
            name=f"{first.name}+{other.name}",
            expression="",
            plugin=first.plugin and other.plugin,
            replay=first.replay or other.replay,
            adapter=adapter,
            consolidator=consolidator,
            initialiser=either(first, other, "initialiser", first.initialiser, other.initialiser),
            rehearsal=either(first, other, "rehearsal", first.rehearsal, other.rehearsal),
            rule=either(first, other, "rule for blocks of steps", first.rule, other.rule),
            mixing=first.mixing if first.mixing != "proportional" else other.mixing,
            merge=either(first, other, "merge", first.merge, other.merge),
            penalties=joined(*one_prediction(first.penalties, other.penalties)),
            outputs=joined(first.outputs, other.outputs),
            transforms=in_turn(joined(first.transforms, other.transforms)),
        )
    return first
