"""K-FAC: earlier tasks hold the weights by the curvature of their losses, in Kronecker factors.

The Kronecker-factored online Laplace approximation of Ritter, Botev and Barber 2018, https://arxiv.org/abs/1805.07810,
there for the full weights of vision models; here for sequences of low-rank updates, which is ours:

    L = L_task + λ Σ_modules ½ tr(ΔW_tᵀ L ΔW_t R) / tr L,   L = Σ_{k<t} mean G Gᵀ,   R = Σ_{k<t} mean Gᵀ G

    symbol   here                                                     shape
    ΔW_t     s B A, or s (B A − B₀ A₀) where one adapter goes on       (o, i)
    G        ∂L/∂W of one row's loss at the end of task k              (o, i)
    L, R     memory "left.", "right."                                  (o, o), (i, i)
    λ        lam; by default a budget finds it

The loss of a row is summed over its answer's tokens, with an answer drawn from what the model itself predicts: the
Fisher information, not the empirical one. R ⊗ L / tr L is its Kronecker approximation that has the same trace. The
rows' gradients are never held: L and R are sums over tokens (`everlora.training.curvature`). Without λ the penalty is
an estimate of what the mean losses of earlier tasks will rise by in sum, in nats per row: the quadratic term alone, of
sums of factors.

``lam=budget`` finds λ by dual ascent, so that this prediction stays below ε nats for each earlier task
(`everlora.core.roles.Budget`). What is allowed grows with the number of tasks, so that a long sequence is held no
tighter than a short one; over fifteen tasks of a small encoder a fixed λ of 10 or 100 ended where the budget did.
``budget`` may be given its nats in brackets; a number is λ as it stands. With ``budget(nats=3e-4, probes=32)`` 32 rows
of each task are stored to be looked at: by what earlier tasks really lost, the prediction for later ones is corrected
(`everlora.training.calibration`), by up to 30 times, so that ε is to be larger: 1e-2 ends where 3e-4 without rows does
(docs/results.md). Without ``probes`` no data are kept.

Invariants: on the first task the penalty is 0; at ΔW = 0 value and gradient are 0; the gauge (cA, B/c) changes
nothing; for a linear model under squared error, whose Fisher information is C_k ⊗ 1, the prediction is exact for any
number of tasks, and with λ = 1 what they end at is the optimum of all.

Pitfalls: cross terms between modules are left out, and rows' inputs and gradients are taken for independent: a rank-8
update is coherent, so that the prediction is too low. What earlier tasks really lost was about twice of it where
nothing held the update, and far more where its own budget did (docs/results.md). There is no first-order term: a task
ends where its loss is low, but its slope is not 0 there. Factors are summed over tasks before they are multiplied,
which is what keeps them constant in T: (ΣR) ⊗ (ΣL) / Σ tr L holds what one task alone depends on less than
Σ R_k ⊗ L_k / tr L_k would. On models that write, a task's loss is a mean over tokens, while L and R are of whole
answers: a fixed λ holds m times as tightly where answers have m tokens.

What we do differently from the paper: what is trained is a low-rank update and not the whole weight; the two factors
are products of whole rows' gradients, without the separation into activations and output gradients, so that tokens of
one row count together; they are brought to the trace of the Fisher information; and a budget in nats takes the place
of a λ that is searched.

``store`` says how the factors are kept (`everlora.parts.factor_stores`): the default ``full`` is o² + i² numbers per
adapted matrix, constant in the number of tasks. With ``low-rank`` and ``diagonal`` no matrix of a wide factor is made,
neither while it is measured nor when tasks are summed.

Composition: one penalty that remembers, on IncLoRA; a plug-in for methods that train one adapter on and on, too
(``kfac+lb-cl``, ``ps-lora+kfac``, ``seqlora+kfac``). Other plug-ins that are joined with it alone (``kfac+replay``,
``migu+kfac``) are put on its fresh adapters. ``ella(lam=budget)`` takes its prediction for ELLA's penalty, and
``ella(lam=budget)+kfac`` the curvature as ``kfac`` measures and stores it for both; with ``lam=0`` it only predicts:
``ella(lam=budget)+kfac(lam=0,store=diagonal)``. Two budgets have a price each, which the one prediction moves: above
both, both penalties pull; between the two, the wider one's price falls to 0, and the narrower one holds by itself.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default, Search
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.core.roles import Budget
from everlora.parts.factor_stores import FactorStore
from everlora.parts.kronecker import KroneckerCurvature
from everlora.parts.strengths import NATS, StrengthOption, read_strength


@method(
    "kfac",
    title="K-FAC: hold the weights by the Kronecker-factored curvature of earlier tasks",
    paper="after Ritter et al. 2018, arXiv:1805.07810",
    stores="r(o+i) per adapted matrix and task; o²+i² per adapted matrix, constant (store=… less)",
    cost="2(o²+i²)r operations per adapted matrix and step; per task one backward pass over n rows",
    rows=(),
)
def kfac(
    *,
    lam: Annotated[
        StrengthOption,
        Default("3e-4 nats per earlier task, as predicted, were the best of what was tried on four tasks.", ours=True),
        Search("budget(nats=1e-4)", "budget(nats=3e-4)", "budget(nats=1e-3)"),
    ] = Budget(nats=NATS),
    samples: Annotated[int, Default("n = 32 rows of each task.", ours=True)] = 32,
    store: Annotated[FactorStore, Default("The factors as they are.", ours=True)] = "full",
    store_rank: Annotated[
        int | None, Default("It is the rank of low-rank stores alone, which without it is 32.", ours=True)
    ] = None,
) -> Method:
    """Build K-FAC.

    >>> kfac().penalties[0].lam
    Budget(nats=0.0003)
    >>> kfac(lam=100).penalties[0].strength
    100

    Raises:
        ConfigError: ``store_rank`` with a store that has none.
    """
    if store_rank is not None and store not in ("low-rank", "diagonal"):
        raise ConfigError(f"store_rank is the rank of low-rank stores; with store={store} there is none")
    pull = KroneckerCurvature(
        lam=read_strength(lam), samples=samples, store=store, store_rank=32 if store_rank is None else store_rank
    )
    return Method(name="kfac", penalties=(pull,), plugin=True)
