"""Merges: the mean of the tasks' updates, TIES and DARE, each for any method that sums adapters.

https://arxiv.org/abs/2306.01708 (TIES), https://arxiv.org/abs/2311.03099 (DARE). Every task learns an update of its
own; answers come from one weight that is made of them by another rule than their sum:

    mean-merge   (1/t) Σ ΔW_k
    ties         TIES-Merging, Yadav et al. 2023, arXiv:2306.01708:
                 trim to ``density``, elect the sign of the sum, mean of those that agree
    dare         DARE, Yu et al. 2024, arXiv:2311.03099:
                 drop entries with probability 1 − ``density``, divide by ``density``, add; with ``elect`` by TIES

    symbol   here                    shape
    ΔW_k     LowRank.dense()         (o, i)
    t        tasks learned so far    number

Invariants: after the first task there is nothing to merge yet; ``infer=sum`` is the host; ``density=1`` is the plain
sum for DARE without ``elect``, which is IncLoRA itself. Pitfalls: the newest task, too, is answered by weights that it
was not trained with; a merge has full rank, so as an adapter it is truncated.

What we do differently: the published rules merge models that were trained independently; here a task is trained on top
of the sum of the earlier ones (``train_past``), and only answers come from the merge (tests/contract/test_merged.py).
TIES keeps the ⌊density · n⌋ largest entries of each matrix, and a sum of 0 counts as positive; the authors' code trims
all matrices of a model together, keeps one entry more, and gives sums of 0 the sign that most other sums have.
DARE's masks depend on seed, task and shape, so that layers of one shape share theirs: each is unbiased by itself
(tests/unit/test_merges.py), and a merge is the same in whatever order layers are visited.

Composition: each on IncLoRA, as a part that joins any method with a fresh adapter per task: ``o-lora+ties``.
"""

from __future__ import annotations

from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method, compose
from everlora.core.registry import method
from everlora.core.roles import Merge
from everlora.methods._options import Infer, TrainPast
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
def mean_merge(*, train_past: TrainPast = "sum", infer: Infer = "merged") -> Method:
    """Build the mean of the tasks' updates.

    >>> mean_merge().merge.name
    'mean_merge'
    """
    return _merged("mean-merge", Mean(train=train_past, infer=infer))


@method(
    "ties",
    title="TIES: trim, elect signs, average what agrees",
    paper="arXiv:2306.01708",
    stores=STORES,
    cost=COST,
    rows=("ties",),
)
def ties(
    *,
    density: Annotated[float, Default("The share of entries that stay, 0.2, is that of the paper.")] = 0.2,
    train_past: TrainPast = "sum",
    infer: Infer = "merged",
) -> Method:
    """Build TIES.

    >>> ties(density=0.5).merge.density
    0.5

    Raises:
        ConfigError: ``density`` is no share.
    """
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
    *,
    density: Annotated[float, Default("The share of entries that stay, 0.5, is our choice.", ours=True)] = 0.5,
    elect: Annotated[bool, Default("DARE's own rule only adds; electing signs is TIES's.")] = False,
    seed: Annotated[int, Default("Any seed will do.", ours=True)] = 0,
    train_past: TrainPast = "sum",
    infer: Infer = "merged",
) -> Method:
    """Build DARE.

    >>> dare(seed=3).merge.seed
    3

    Raises:
        ConfigError: ``density`` is no share.
    """
    return _merged("dare", Dare(density=density, elect=elect, seed=seed, train=train_past, infer=infer))


def _merged(name: str, merge: Merge) -> Method:
    return compose(inclora(), Method(name="", merge=merge)).named(name)
