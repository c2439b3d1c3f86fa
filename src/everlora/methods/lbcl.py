"""LB-CL: Learn More, But Bother Less: Parameter-Efficient Continual Learning. NeurIPS 2024.

*Learn more*: a new task starts from the triplets of the old ones that matter to it. *Bother less*: its gradients stay
out of the subspaces that the old ones hold.

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
every old direction, and projecting twice is projecting once. Pitfalls follow: where the start lies, what Adam leaves,
and where room ends.

``sigma=with`` moves the function at once (the second task starts at W0 + 2 ΔW_1); ``without`` transfers U and V only.
``top_layers`` starts only the last blocks so. Default ``samples = 8``: the slides. ``projection=literal`` is the
slide's sum of projections on each old task, which turns around what two of them share, so ``joint`` is the default;
``strict`` projects the step that Adam took, since Adam's scaling of single entries brings about a tenth of the
gradient's old directions back. ``per_sample``, off by default, takes the mean of |w ∂L/∂w| over rows, with a backward
pass for each, where otherwise ∂L/∂W is that of their mean loss.

What we do differently (tests/unit/test_lbcl.py and test_subspace.py: worked examples, and autograd): triplets are
scored with one backward pass for all old tasks, from ∂L/∂W of the folded model; U and V are PEFT's AdaLoRA without
its rank allocation, so every folder loads with PEFT.

The slides show neither s nor γ nor a learning rate. Ours are from dev rows (SmolLM2-135M, built-in reviews → news → …,
36 steps of 8 rows a task, one seed): with γ = 0.1 and a rate of 1e-3 the first task was hardly learned (21 %, s = 4),
with γ = 0.01 it was at 3e-3 (73 %) and at 1e-2 (83 %); γ = 0.001 forgot most (BWT −40 against −17 at 3e-3). So γ =
0.01, s = alpha / r, and a rate ten times that of plain LoRA is advised. At that rate, after four tasks (OA / BWT):
B-CL 83.9 / −0.7, NLNB-CL 81.8 / −4.9, LB-CL without σ 78.1 / −10.4, with σ 64.6 / −18.7. So ``sigma=without`` is the
default, although the paper's main results are with it: doubling ΔW at the second task costs here more than it helps.
At 24 steps of 4 rows a rate of 2e-2 learned less than 1e-2 (B-CL: OA 47.9 against 68.8).

The regulariser's gradient passes through the projection like the task's. A start that lies in the old span, as a blend
does, is therefore not pulled back to unit length by it; only what is learned off the span is.

Hard projection runs out of room: a 192-wide matrix is full after 24 tasks of rank 8. A warning comes before that, and
`everlora status` shows what is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from everlora.core.adapter import Adapter, Consolidator
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
LOOK = "; per task a backward pass on a few rows"
Projection = Literal["joint", "literal"]
Scale = Literal["unit", "alpha"]


@method("nlnb-cl", title="LB-CL without both its parts: IncLoRA in SVD form", paper=PAPER, stores=STORES, cost=UNIT)
def nlnb_cl(*, gamma: float = 0.01, scale: Scale = "alpha") -> Method:
    """Build the SVD form: neither learn more nor bother less."""
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
    cost=UNIT + LOOK,
)
def l_cl(
    *,
    samples: int = 8,
    sigma: Literal["with", "without"] = "without",
    top_layers: int | None = None,
    per_sample: bool = False,
    gamma: float = 0.01,
    scale: Scale = "alpha",
) -> Method:
    """Build learn-more without bother-less."""
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
    *, projection: Projection = "joint", strict: bool = False, gamma: float = 0.01, scale: Scale = "alpha"
) -> Method:
    """Build bother-less without learn-more."""
    project = ProjectOut(form=projection, acts_on="update" if strict else "gradient")
    return compose(nlnb_cl(gamma=gamma, scale=scale), Method(name="", transforms=(project,))).named("b-cl")


@method(
    "lb-cl",
    title="LB-CL: start from the sensitive old triplets, learn off their subspaces",
    paper=PAPER,
    stores=STORES,
    cost=f"{OFF}, and {UNIT}{LOOK}",
)
def lb_cl(
    *,
    samples: int = 8,
    sigma: Literal["with", "without"] = "without",
    top_layers: int | None = None,
    per_sample: bool = False,
    projection: Projection = "joint",
    strict: bool = False,
    gamma: float = 0.01,
    scale: Scale = "alpha",
) -> Method:
    """Build LB-CL."""
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
def copy_layers(*, top_layers: int | None = None) -> Method:
    """Build layer replacement on IncLoRA; without ``top_layers`` all layers are copied."""
    return replace(inclora(), name="copy-layers", initialiser=CopyLayers(top_layers=top_layers))


@method(
    "project-out",
    title="LB-CL's projection as a plug-in for any fresh adapter: o-lora+project-out",
    paper=PAPER,
    stores="r(o+i) per adapted matrix and task",
    cost=OFF,
    rows=(),
)
def project_out(*, projection: Projection = "joint", strict: bool = False) -> Method:
    """Build the projection alone."""
    project = ProjectOut(form=projection, acts_on="update" if strict else "gradient")
    return Method(name="project-out", transforms=(project,))
