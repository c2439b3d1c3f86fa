"""Other ways to make one weight of the tasks' updates, to stand beside PS-LoRA's: each a plug-in for summed adapters.

    mean-merge   (1/t) Σ ΔW_k
    ties         TIES-Merging, Yadav et al. 2023, arXiv:2306.01708:
                 trim to ``density``, elect the sign of the sum, mean of those that agree
    dare         DARE, Yu et al. 2024, arXiv:2311.03099:
                 drop entries with probability 1 − ``density``, divide by ``density``, add; with ``elect`` by TIES

Defaults: ``density = 0.2`` is that of TIES's paper; DARE's ``density = 0.5`` is ours, and any ``seed = 0`` will do.
``train_past=sum`` and ``infer=merged`` are the defaults of `everlora.methods.pslora`, for its reasons.

The plain sum is IncLoRA itself. The first task stands alone: there is nothing to merge yet. What we do differently:
the published rules merge models that were trained apart; here a task is trained on top of the sum of the earlier ones
(``train_past``), and only answers come from the merge.
"""

from __future__ import annotations

from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.core.roles import Merge, View
from everlora.methods.inclora import inclora
from everlora.parts.merges import Dare, Mean, Ties

STORES = "r(o+i) per adapted matrix and task; the merge is made of them"
COST = "nothing; per task a merge of oi entries of t updates"


@method(
    "mean-merge",
    title="The mean of the tasks' updates",
    paper="baseline of merging",
    stores=STORES,
    cost=COST,
    rows=(),
)
def mean_merge(*, train_past: View = "sum", infer: View = "merged") -> Method:
    """Build the mean."""
    return _merged("mean-merge", Mean(train=train_past, infer=infer))


@method(
    "ties",
    title="TIES: trim, elect signs, average what agrees",
    paper="arXiv:2306.01708",
    stores=STORES,
    cost=COST,
    rows=("ties",),
)
def ties(*, density: float = 0.2, train_past: View = "sum", infer: View = "merged") -> Method:
    """Build TIES."""
    return _merged("ties", Ties(density=density, train=train_past, infer=infer))


@method(
    "dare",
    title="DARE: drop and rescale, then add",
    paper="arXiv:2311.03099",
    stores=STORES,
    cost=COST,
    rows=("dare",),
)
def dare(
    *, density: float = 0.5, elect: bool = False, seed: int = 0, train_past: View = "sum", infer: View = "merged"
) -> Method:
    """Build DARE."""
    return _merged("dare", Dare(density=density, elect=elect, seed=seed, train=train_past, infer=infer))


def _merged(name: str, merge: Merge) -> Method:
    return compose(inclora(), Method(name="", merge=merge)).named(name)
