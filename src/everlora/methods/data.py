"""DATA: Decomposed Attention-based Task Adaptation for Rehearsal-Free Continual Learning. Liao et al., 2025.

https://arxiv.org/abs/2502.11482. What tasks share fits an adapter of low rank, what they do not share needs one of
high rank. Each layer has both, and both are trained on all tasks; how much of each an input gets is decided by gates
that attend to components, of which every task adds some of its own:

    y  = W0 x + g₁(h) B₁A₁x + g₂(h) B₂A₂x
    g  = σ(Σ_j cos(h̄ ⊙ A_j, K_j) · mean W_j)                         gate=cosine, the attention that is described
    g  = σ(Σ_{l,j,b} ⟨h_l, A_j⟩/‖·‖_j · (Σ_b' K̂_jb')/√e · W_jb)       gate=code, the published index pattern
    L  = L_task + μ · mean over K, A, W, gates and groups of mean((M Mᵀ − I)²)

    symbol     here                                    shape
    A₁, A₂     A_low, A_high of a module               (r₁, i), (r₂, i)
    B₁, B₂     B_low, B_high                           (o, r₁), (o, r₂)
    h, h̄       what enters a group of g blocks,        (s, e), (e)
               its mean over the prompt's tokens
    K, A, W    pools of gates.<stack>.<group>.<side>   (p t, e)
    r₁, r₂     low, high                               numbers
    p, g, μ    components, blocks, mu                  numbers

A new task adds p components to every pool, orthogonal to all earlier ones, which are frozen. Once a pool has as many
components as e allows, further ones are random unit rows: nothing fails, orthogonality ends. Answering uses the
components of all tasks so far: no task id. Learning rate 1e-4, no α/r scale; the ranks of the published runs are not
stated.

Invariants: gates lie between 0 and 1; while B₁ = B₂ = 0 the function is that of W0; components of earlier tasks get no
gradient. Pitfalls: under ``gate=code`` what goes into σ is a sum over tokens and width, so that gates saturate with
the length of a text; what is learned depends on the input, so it folds into no model. New pools start where their
penalty is least and where gates do not feel K and A: the first gradients of K, A and W are rounding, about as large as
AdamW's epsilon of 1e-8, which makes whole steps of them. So other micro-batches of one batch learn pools that differ
by 1e-3 (under plain SGD, or with AdamW's ε at 1e-6, by no more than any method's; tests/equivalence).

What we do differently (tests/unit/test_forms_dual.py, and tests/contract/test_data.py for the whole layer):
- no task id at inference: the authors' code cuts the pools to the tasks up to the one whose name it reads off the
  prompt. That option (an oracle's slice) is left out: it would make every score depend on an id that no other
  replay-free method uses, and the method has to be robust to the pools of later tasks;
- gates see the prompt alone: padding and the answer are masked, and a cached decoding step reuses the gates of the
  prompt. In the public code they are sums over padding and answer in training and over a single token in cached
  decoding, so the model that answers is not the one that was trained (tests/contract/test_data.py compares both);
- for the decoder of an encoder-decoder the prompt is the start position, from which its gates are computed;
- new rows of W have mean 0, in which they add nothing: a task starts where the one before ended, exactly under
  ``cosine``. Under ``code`` the normalisation over components moves the gates when components are added;
- the penalty is on K, A and W as they are, as the formula says; the authors' code normalises the keys first, which
  leaves their lengths free (on the same tensors 3.667 there, 5.138 here);
- the penalty enters once per step, in closed form. Uncertainty scaling with an averaged teacher, off in the published
  recipe, is left out.

Composition: a form of adapter of its own that is trained from task to task, so it joins no method that needs LoRA
pairs; ``data+replay`` is DATA + Replay.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.adapter import Consolidator
from everlora.core.defaults import Default
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
    low: Annotated[int, Default("r₁ = 4 is the default of the authors' scripts.")] = 4,
    high: Annotated[int, Default("r₂ = 16 is the default of the authors' scripts.")] = 16,
    components: Annotated[int, Default("p = 8 is the default of the authors' scripts.")] = 8,
    blocks: Annotated[int, Default("g = 4 is the default of the authors' scripts.")] = 4,
    gate: Annotated[Gate, Default("``cosine`` is the attention that the paper describes.")] = "cosine",
    mu: Annotated[float, Default("μ = 1 is the default of the authors' scripts.")] = 1.0,
    restore: Annotated[
        float,
        Default(
            "0, no restoration, is the default of the authors' scripts; the published probability per weight is 1e-5."
        ),
    ] = 0.0,
    restore_every: Annotated[int, Default("Restoration after every step is our choice.", ours=True)] = 1,
) -> Method:
    """Build DATA: ranks r₁ and r₂, p, g, the form of the gates, μ, and stochastic restoration.

    >>> [part.name for part in data(restore=1e-5).parts()]
    ['gate_orthonormality', 'restoration']

    Raises:
        ConfigError: a rank, a count or a probability out of range.
    """
    restoring = Restoration(rate=restore, every=restore_every)
    transforms: tuple[GradientTransform, ...] = (restoring,) if restore else ()
    return Method(
        name="data",
        adapter=DualAdapter(low=low, high=high, components=components, blocks=blocks, gate=gate),
        consolidator=Consolidator(rule="continue"),
        penalties=(Orthonormality(lam=mu),),
        transforms=transforms,
    )
