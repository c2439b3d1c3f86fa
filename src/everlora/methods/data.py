"""DATA: Decomposed Attention-based Task Adaptation for Rehearsal-Free Continual Learning. Liao et al., 2025.

What tasks share fits an adapter of low rank, what they do not share needs one of high rank. Each layer has both, and
both are trained on all tasks; how much of each an input gets, say gates that attend to components, of which every
task brings some of its own:

    y  = W0 x + g₁(h) B₁A₁x + g₂(h) B₂A₂x
    g  = σ(Σ_j cos(h̄ ⊙ A_j, K_j) · mean W_j)                         gate=cosine, the attention that is described
    g  = σ(Σ_{l,j,b} ⟨h_l, A_j⟩/‖·‖_j · (Σ_b' K̂_jb')/√e · W_jb)       gate=code, the published index pattern
    L  = L_task + μ · mean over K, A, W, gates and groups of mean((M Mᵀ − I)²)

    symbol     here                                    shape
    A₁, A₂     A_low, A_high of a module               (r₁, i), (r₂, i)
    B₁, B₂     B_low, B_high                           (o, r₁), (o, r₂)
    h, h̄       what enters a group of g blocks,        (s, e), (e)
               its mean over the prompt's tokens
    K, A, W    the site gates.<stack>.<group>.<side>   (p t, e)
    r₁, r₂     low, high                               numbers
    p, g, μ    components, blocks, mu                  numbers

A new task adds p components to every pool, orthogonal to all earlier ones, which are frozen. Once a pool has as many
components as e allows, further ones are random unit rows: nothing fails, orthogonality ends. Answering uses the
components of all tasks seen so far: no task id.

Defaults of the authors' scripts: r₁ = 4, r₂ = 16, p = 8, g = 4, μ = 1, and ``restore = 0``, which is no restoration
(it is a probability per weight, the published figure being 1e-5). ``restore_every = 1`` step is ours. No α/r scale;
learning rate 1e-4. The ranks of the published runs are not stated.

What we do differently:
- no task id at inference: the authors' code cuts the pools to the tasks up to the one whose name it reads off the
  prompt. That option (an oracle's slice) is left out: it would make every score depend on an id that all other
  replay-free rows do without, and the pools of later tasks are what has to be robust to;
- gates see the prompt alone: padding and the answer are masked, and a cached decoding step keeps the gates of the
  prompt. In the public code they are sums over padding and answer in training and over a single token in cached
  decoding, so the model that answers is not the one that was trained (tests/contract/test_data.py compares both);
- of a decoder beside an encoder the prompt is the start position, from which gates are then taken;
- new rows of W have mean 0, in which they add nothing: a task starts where the one before ended, exactly under
  ``cosine``. Under ``code`` the normalisation over components moves the gates when components are added;
- the penalty enters once per step, in closed form. Uncertainty scaling with an averaged teacher, off in the
  published recipe, is left out.

DATA + Replay is ``data+replay``.
"""

from __future__ import annotations

from everlora.core.adapter import Consolidator
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.core.roles import GradientTransform
from everlora.parts.forms_dual import DualAdapter, Gate, Orthonormality, Restoration


@method(
    "data",
    title="DATA: a low-rank and a high-rank adapter under gates of decomposed attention",
    paper="Liao et al. 2025, arXiv:2502.11482",
    stores="(r1+r2)(o+i) per adapted matrix, constant; 6pe per group of blocks and task",
    cost="a second adapter; gates 2·tokens·e·p·t per group of blocks",
    aliases=("data-lora",),
    rows=("data", "data+replay"),
)
def data(
    *,
    low: int = 4,
    high: int = 16,
    components: int = 8,
    blocks: int = 4,
    gate: Gate = "cosine",
    mu: float = 1.0,
    restore: float = 0.0,
    restore_every: int = 1,
) -> Method:
    """Build DATA: ranks r₁ and r₂, p, g, the form of the gates, μ, and stochastic restoration."""
    restoring = Restoration(rate=restore, every=restore_every)
    transforms: tuple[GradientTransform, ...] = (restoring,) if restore else ()
    return Method(
        name="data",
        adapter=DualAdapter(low=low, high=high, components=components, blocks=blocks, gate=gate),
        consolidator=Consolidator(rule="continue"),
        penalties=(Orthonormality(lam=mu),),
        transforms=transforms,
    )
