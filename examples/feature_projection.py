"""Feature projection: a gradient transform that remembers, in one file outside the package.

Of every adapted module an orthonormal basis F (i, q) of what it has read is remembered: the fewest directions that
hold a share ε of the energy of its inputs x on some rows of every task,

    tr(Fᵀ C F) ≥ ε tr(C),   C = (1/n) Σ x xᵀ

One adapter is trained on and on, and what trains A, the gradient and the optimiser's step, loses what lies in F:

    ∂L/∂A ← ∂L/∂A (I − F Fᵀ)

Then A x stays what it was for every x in the span of F. How wide F is depends on the data, and so it differs from
module to module: modules of one shape come to `prepare` together where their bases agree in width, else one by one.

    symbol   here              shape
    ε        energy
    n        samples           rows; n counts their tokens
    F        memory["basis"]   (i, q) of one module, (L, i, q) of L modules

Default ε = 0.9: a guess, to show how an option looks.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from everlora import Method, method, parse
from everlora.parts import extend_basis, project_off
from everlora.roles import (
    NO_EVIDENCE,
    ConfigError,
    Evidence,
    EvidenceKind,
    GradientTransform,
    HasMemory,
    LowRank,
    Needs,
    NeedsEvidence,
    State,
    TaskContext,
)


@dataclass(frozen=True, kw_only=True)
class FeatureProjection(GradientTransform, HasMemory, NeedsEvidence):
    """What trains A stays off the directions that earlier tasks have read.

    Attributes:
        energy: ε, the share of the inputs' energy that is protected.
        samples: training rows of a finished task that are looked at.
    """

    name: ClassVar[str] = "feature_projection"
    needs: ClassVar[Needs] = Needs(continued_adapter=True, cumulative_memory=True, memory_at_most=True)
    acts_on: ClassVar[Literal["gradient", "update", "both"]] = "both"  # Adam's step leaves the span of its gradients
    evidence: ClassVar[EvidenceKind] = "moment"
    energy: float = 0.9
    samples: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise ConfigError(f"energy is a share of the inputs' energy, above 0 and at most 1, not {self.energy}")

    def prepare(self, before: TaskContext) -> State | None:
        return {"basis": before.memory["basis"]} if before.memory else None

    def shape(self, gradient: State, state: State) -> State:
        return {**gradient, "A": project_off(gradient["A"].mT, state["basis"]).mT}

    def remember(self, update: LowRank, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        basis = memory["basis"] if memory else update.A.new_zeros(update.shape[1], 0)
        if evidence.moment is not None:
            basis = extend_basis(evidence.moment, basis, self.energy)
        return {"basis": basis.float().contiguous()}

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        return 4 * into * into  # all directions, at most


@method(
    "feature-projection",
    title="Projection off the features of earlier tasks",
    paper="an example",
    stores="r(o+i) + i·q per adapted matrix, q at most i",
    cost="4iqr operations per adapted matrix, twice",
)
def feature_projection(*, energy: float = 0.9, samples: int = 32) -> Method:
    """Build it."""
    part = FeatureProjection(energy=energy, samples=samples)
    return replace(parse("seqlora"), transforms=(part,)).named("feature-projection")
