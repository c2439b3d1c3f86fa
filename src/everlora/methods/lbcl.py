"""LB-CL: Learn More, But Bother Less: Parameter-Efficient Continual Learning. NeurIPS 2024.

*Learn more*: a new task starts from the triplets of the old ones that matter to it. *Bother less*: its gradients stay
out of the subspaces that the old ones span.

    ΔW_t = s U_t Σ_t V_t
    start    (u_j, σ_j, v_j) = Σ_i α_j^i (u_j^i, σ_j^i, v_j^i),   α_j^i = S_j^i / Σ_i' S_j^i'
             S_j = S(σ_j) + mean_a S(U_aj) + mean_b S(V_jb),   S(w) = |w ∂L/∂w| on ``samples`` rows of the new task
    step     ∇U ← (I − Q_U Q_Uᵀ) ∇U,   ∇V ← ∇V (I − Q_V Q_Vᵀ);   Q spans all earlier U (V)
    loss     L_task + γ Σ_modules (‖UᵀU − I‖² + ‖VVᵀ − I‖²)

    symbol      here                       shape
    U, V        LowRank.B, LowRank.A       (o, r), (r, i)
    Σ           LowRank.sigma, a column    (r, 1)
    γ, s        gamma, scale               s = alpha / r (``alpha``) or 1 (``unit``)

    lb-cl    start and step        l-cl     start only
    b-cl     step only             nlnb-cl  neither: IncLoRA in SVD form

Invariants: Σ_i α_j^i = 1, so the second task starts at the first one's triplets; projected gradients are orthogonal to
every old direction, and projecting twice is projecting once. Pitfalls: hard projection runs out of room: a 192-wide
matrix is full after 24 tasks of rank 8 (a warning comes before that, and `everlora status` shows what is left); the
regulariser's gradient passes through the projection like the task's, so that a start that lies in the old span, as a
blend does, is not pulled back to unit length by it; only what is learned off the span is.

``sigma=with`` moves the function at once (the second task starts at W0 + 2 ΔW_1); ``without`` transfers U and V only.
``top_layers`` starts only the last blocks so. ``projection=literal`` is the slide's sum of projections on each old
task, which turns around what two of them share; ``joint`` projects on their common span. ``strict`` projects the step
that Adam took, since Adam's scaling of single entries brings about a tenth of the gradient's old directions back.
``per_sample`` takes the mean of |w ∂L/∂w| over rows, with a backward pass for each, where otherwise ∂L/∂W is that of
their mean loss.

What we do differently (tests/unit/test_lbcl.py and test_subspace.py: worked examples, and autograd): triplets are
scored with one backward pass for all old tasks, from ∂L/∂W of the folded model; U and V are PEFT's AdaLoRA without its
rank allocation, so every folder loads with PEFT.

The slides show neither s nor γ nor a learning rate. Ours are from dev rows (SmolLM2-135M, built-in reviews → news → …,
36 steps of 8 rows a task, one seed): with γ = 0.1 and a rate of 1e-3 the first task was hardly learned (21 %, s = 4),
with γ = 0.01 it was at 3e-3 (73 %) and at 1e-2 (83 %); γ = 0.001 forgot most (BWT −40 against −17 at 3e-3). So γ =
0.01, s = alpha / r, and a rate ten times that of plain LoRA is advised. At that rate, after four tasks (OA / BWT):
B-CL 83.9 / −0.7, NLNB-CL 81.8 / −4.9, LB-CL without σ 78.1 / −10.4, with σ 64.6 / −18.7: doubling ΔW at the second
task costs here more than it helps, although the paper's main results are with σ. At 24 steps of 4 rows a rate of 2e-2
learned less than 1e-2 (B-CL: OA 47.9 against 68.8).

Composition: an initialiser, a gradient transform and a penalty on IncLoRA in SVD form. ``project-out`` is the
transform alone, for any method with a fresh adapter per task (``o-lora+project-out``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.defaults import Default
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.methods.inclora import inclora
from everlora.parts.blend import SensitivityBlend
from everlora.parts.copy_layers import CopyLayers
from everlora.parts.subspace import OrthonormalTriplets, ProjectOut

PAPER = "LB-CL, NeurIPS 2024"
STORES = "r(o+i+1) per adapted matrix and task"
UNIT = "4r²(o+i) operations per adapted matrix"
OFF = "4Rr(o+i) operations per adapted matrix, R = r(t−1)"
SENSITIVITY = "; per task a backward pass on a few rows"

Projection = Annotated[
    Literal["joint", "literal"],
    Default("``literal``, the slide's sum of projections, turns around what two old tasks share.", ours=True),
]
Strict = Annotated[bool, Default("The paper projects gradients, not the steps that Adam takes.")]
Gamma = Annotated[
    float, Default("γ = 0.01 learned most and forgot least on dev rows; the slides have no γ.", ours=True)
]
Scale = Annotated[
    Literal["unit", "alpha"],
    Default("s = alpha / r learned most on dev rows; the slides have no s.", ours=True),
]
Samples = Annotated[int, Default("8 rows is the number in the slides.")]
Sigma = Annotated[
    Literal["with", "without"],
    Default("``without`` ended higher on dev rows, although the paper's main results are with σ.", ours=True),
]
TopLayers = Annotated[int | None, Default("All adapted layers start so, as in the paper.")]
PerSample = Annotated[
    bool, Default("∂L/∂W of the rows' mean loss takes one backward pass instead of one per row.", ours=True)
]


@method("nlnb-cl", title="LB-CL without both its parts: IncLoRA in SVD form", paper=PAPER, stores=STORES, cost=UNIT)
def nlnb_cl(*, gamma: Gamma = 0.01, scale: Scale = "alpha") -> Method:
    """Build IncLoRA in SVD form, with neither part of LB-CL.

    >>> nlnb_cl().adapter.form
    'svd'
    """
    return Method(
        name="nlnb-cl",
        adapter=Adapter(policy="new", form="svd", unit=scale == "unit"),
        consolidator=Consolidator(rule="sum"),
        penalties=(OrthonormalTriplets(lam=gamma),),
    )


@method(
    "l-cl",
    title="LB-CL's start alone: triplets blended from the old ones",
    paper=PAPER,
    stores=STORES,
    cost=UNIT + SENSITIVITY,
)
def l_cl(
    *,
    samples: Samples = 8,
    sigma: Sigma = "without",
    top_layers: TopLayers = None,
    per_sample: PerSample = False,
    gamma: Gamma = 0.01,
    scale: Scale = "alpha",
) -> Method:
    """Build LB-CL's start without its projection.

    >>> [part.name for part in l_cl().parts()]
    ['sensitivity_blend', 'orthonormal_triplets']
    """
    start = SensitivityBlend(samples=samples, sigma=sigma, top_layers=top_layers, per_sample=per_sample)
    svd = nlnb_cl(gamma=gamma, scale=scale)
    return compose(svd, Method(name="", adapter=svd.adapter, initialiser=start)).named("l-cl")


@method(
    "b-cl",
    title="LB-CL's projection alone: gradients off the old subspaces",
    paper=PAPER,
    stores=STORES,
    cost=f"{OFF}, and {UNIT}",
)
def b_cl(
    *, projection: Projection = "joint", strict: Strict = False, gamma: Gamma = 0.01, scale: Scale = "alpha"
) -> Method:
    """Build LB-CL's projection without its start.

    >>> [part.name for part in b_cl().parts()]
    ['orthonormal_triplets', 'project_out']
    """
    project = ProjectOut(form=projection, acts_on="update" if strict else "gradient")
    return compose(nlnb_cl(gamma=gamma, scale=scale), Method(name="", transforms=(project,))).named("b-cl")


@method(
    "lb-cl",
    title="LB-CL: start from the sensitive old triplets, learn off their subspaces",
    paper=PAPER,
    stores=STORES,
    cost=f"{OFF}, and {UNIT}{SENSITIVITY}",
)
def lb_cl(
    *,
    samples: Samples = 8,
    sigma: Sigma = "without",
    top_layers: TopLayers = None,
    per_sample: PerSample = False,
    projection: Projection = "joint",
    strict: Strict = False,
    gamma: Gamma = 0.01,
    scale: Scale = "alpha",
) -> Method:
    """Build LB-CL, which is `l_cl` and `b_cl` together.

    >>> [part.name for part in lb_cl().parts()]
    ['sensitivity_blend', 'orthonormal_triplets', 'project_out']
    """
    more = l_cl(samples=samples, sigma=sigma, top_layers=top_layers, per_sample=per_sample, gamma=gamma, scale=scale)
    less = b_cl(projection=projection, strict=strict, gamma=gamma, scale=scale)
    return compose(more, less).named("lb-cl")


@method(
    "copy-layers",
    title="The study behind LB-CL: start the upper layers as copies of the task before",
    paper=PAPER,
    stores="r(o+i) per adapted matrix and task",
    cost="nothing",
    rows=(),
)
def copy_layers(
    *, top_layers: Annotated[int | None, Default("Without a number all layers are copied.", ours=True)] = None
) -> Method:
    """Build layer replacement on IncLoRA.

    >>> copy_layers(top_layers=2).initialiser.top_layers
    2
    """
    return replace(inclora(), name="copy-layers", initialiser=CopyLayers(top_layers=top_layers))


@method(
    "project-out",
    title="LB-CL's projection as a plug-in for any fresh adapter: o-lora+project-out",
    paper=PAPER,
    stores="r(o+i) per adapted matrix and task",
    cost=OFF,
    rows=(),
)
def project_out(*, projection: Projection = "joint", strict: Strict = False) -> Method:
    """Build the projection alone, to be joined to another method.

    >>> project_out(strict=True).transforms[0].acts_on
    'update'
    """
    project = ProjectOut(form=projection, acts_on="update" if strict else "gradient")
    return Method(name="project-out", transforms=(project,))
