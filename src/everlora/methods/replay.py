"""Replay: a few rows of every task are stored, and shuffled among those of later tasks.

The oldest remedy against forgetting, and the strongest simple one where data may be stored. SeqLoRAReplay of the
papers' tables (baseline, ELLA's results table); DATA+Replay draws in the same way.

    L_t = cross entropy on D_t ∪ ⋃_{k<t} M_k, shuffled together, no re-weighting;   |M_k| = ⌊ρ · n_k⌋

    symbol   here                                       size
    ρ        ratio                                      of 14 000 rows 280, of 400 rows 8, of 250 rows 5
    M_k      training rows of task k, never test rows   drawn from the run's seed and the task's name

    replay          the part alone, for any method and form of adapter: ``ella+replay``, ``o-lora+replay(ratio=0.1)``
    seqlora-replay  one adapter trained from task to task, with replay
    mtl-buffer      a sanity bound: one adapter on ⋃_k M_k alone, all tasks at once; the rows are those that
                    seqlora-replay has stored in the end at the same seed, if both are balanced or both are not. What
                    replay does better, it does by having seen the other rows once

``resample=fixed`` stores M_k once and for all, in the run folder. ``each-task`` draws M_k anew for every later task,
as DATA's code does; then the whole training sets must be stored somewhere, and that is what is counted. They are
always at hand: whoever resumes a folder gives its tasks again, with the same data. ``balanced`` takes equally many
rows of each class, ⌊|M_k| / classes⌋ and at least one, and the remainder at random; with more classes than |M_k|, that
is more than ⌊ρ · n_k⌋. Answers in free text have no classes and are drawn uniformly.

Invariants: ratio=0 is the host bit for bit; the same seed draws the same rows, and never test rows. Pitfalls: it
stores users' data; an epoch has more steps than without; 2 % of a small task may be no row at all (a warning says so)
or miss a class; TRACE's replay (ratio 0.1 plus a general instruction set) is full fine-tuning.

What we do differently (tests/unit/test_replay.py; tests/contract/test_rehearsed.py for whole runs):
- The draw does not depend on global random state: adding a part, or resuming, does not change which rows are drawn.
- ⌊ρ · n⌋ is exact: 0.29 of 100 rows are 29, where floating point gives 28.
- A classification head is trained on the labels of new and rehearsed rows together; the papers' models answer in text.

Composition: ``replay`` joins every method that learns task after task; the other two are its usual hosts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from everlora.core.defaults import Default
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.methods._options import Ratio
from everlora.methods.references import Mixed, mtl
from everlora.methods.seqlora import seqlora
from everlora.parts.replay import Replay, Resample

Balanced = Annotated[bool, Default("Rows are drawn uniformly in ELLA's and DATA's tables.")]
Resampled = Annotated[
    Resample, Default("``fixed`` stores few rows; DATA's code draws anew from all rows for each task.", ours=True)
]

STORES = "⌊ratio·n⌋ rows of data per task (resample=each-task: all of them)"


@method(
    "replay",
    title="Replay: rows of earlier tasks among those of the new one; for any method",
    paper="baseline (ELLA, results table)",
    stores=STORES,
    cost="no step more expensive, ratio · Σ n_k / n_t more of them per epoch",
    replay=True,
    aliases=("rehearsal",),
)
def replay(*, ratio: Ratio = 0.02, balanced: Balanced = False, resample: Resampled = "fixed") -> Method:
    """Build replay; by itself it is put on one adapter that is trained from task to task.

    >>> replay(ratio=0.1).rehearsal.ratio
    0.1

    Raises:
        ConfigError: ``ratio`` is no share.
    """
    part = Replay(ratio=ratio, balanced=balanced, resample=resample)
    return replace(seqlora(), name="replay", rehearsal=part, plugin=True)


@method(
    "seqlora-replay",
    title="Sequential LoRA with replay",
    paper="baseline (ELLA, results table)",
    stores=f"r(o+i) per adapted matrix, constant; {STORES}",
    cost="no step more expensive, ratio · Σ n_k / n_t more of them per epoch",
    replay=True,
)
def seqlora_replay(*, ratio: Ratio = 0.02, balanced: Balanced = False, resample: Resampled = "fixed") -> Method:
    """Build SeqLoRAReplay.

    >>> seqlora_replay().group
    'replay'
    """
    return replace(replay(ratio=ratio, balanced=balanced, resample=resample), name="seqlora-replay", plugin=False)


@method(
    "mtl-buffer",
    title="All tasks at once from the rows that replay keeps, and nothing else",
    paper="sanity bound of replay",
    stores="⌊ratio·n⌋ rows of data per task, then r(o+i) per adapted matrix",
    cost="nothing",
    replay=True,
)
def mtl_buffer(
    *,
    ratio: Ratio = 0.02,
    balanced: Annotated[
        bool, Default("A task of which no row is stored would not be learned at all.", ours=True)
    ] = True,
    mixing: Mixed = "proportional",
) -> Method:
    """Build the sanity bound of replay.

    >>> mtl_buffer().regime
    'joint'
    """
    part = Replay(ratio=ratio, balanced=balanced, rehearsed_only=True)
    return replace(mtl(mixing=mixing), name="mtl-buffer", rehearsal=part)
