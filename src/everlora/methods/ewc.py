"""EWC: elastic weight consolidation. Kirkpatrick et al., 2017, https://arxiv.org/abs/1612.00796.

What earlier tasks need is held where they left it, parameter by parameter, as tightly as their Fisher information
says; here on one adapter, or on all weights:

    L = L_task + (λ/2) Σ_j F_j (θ_j − θ*_j)²,   F_j = (1/n) Σ_{i≤n} (∂ log p(y_i|x_i) / ∂θ_j)²

    symbol    here                                                shape
    θ         LowRank.tensors (A, B), or Weights.tensors          as trained
    θ*        TaskContext.start (online), memory "anchor." (per-task)  as θ
    F         memory "fisher."                                    as θ
    λ, n, γ   lam, samples, gamma

F is measured on ``samples`` training rows once a task has been learned: one row at a time, dropout off, its whole
answer's log-probability (the sum over its tokens). At the start of a first task B = 0 and ∂/∂A vanishes, so F would
say that A is free; after training it does not. ``form=online``: F ← γ F + F_new around the newest θ. ``per-task``: the
sum of every task's own quadratic; it is one quadratic again, with ΣF_k and the F-weighted mean of the θ_k, and is
stored as these two, exactly and in constant size.

Invariants: on the first task the penalty is 0; at θ = θ* value and gradient are 0, elsewhere the gradient is exactly λ
F ⊙ (θ − θ*); ``lam=0`` is SeqLoRA. Pitfalls: λ does not carry over from code to code, since each scales F in its own
way, and F is as large as the rows are uncertain: a task that was learned well is held loosely.

``on=lora`` protects the factors of the shared adapter: F then belongs to coordinates (A, B) and not to B A, and
changes if the pair is rescaled. ``on=all`` trains and protects all weights (`everlora.methods.seqft`: mind the
learning rate). The head of a classifier is not protected: rows of labels that are not learned now stay anyway.

To choose a λ, look at ``rho`` in training.jsonl (the penalty's share of the gradient, 0.01 … 1 is sane), or let
``lam=auto`` find the λ that brings it to ``rho``.

What we do differently, and how we know that it is right (tests/unit/test_ewc.py, against per-row autograd):

- F is the mean of squared gradients of single rows. EasyCL squares the gradient of a batch's mean loss, which is up to
  b times smaller for a batch of b rows, and outside ZeRO-3 on one process alone.
- F is measured after the task, of the task's loss alone. TRACE squares mini-batch gradients of the whole loss, the EWC
  term among them, at every step of every epoch, and lets the growing F act on the task that it is measured on.

Composition: one penalty on SeqLoRA (or SeqFT); it joins methods that train one adapter from task to task
(``ewc+replay``, ``ewc+migu``), not those with a fresh adapter per task.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from everlora.core.defaults import Default, Search
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.core.registry import method
from everlora.core.roles import Budget
from everlora.methods._options import RhoOption
from everlora.methods.seqft import seqft
from everlora.methods.seqlora import seqlora
from everlora.parts.kronecker import predictor
from everlora.parts.quadratic import Form, Quadratic
from everlora.parts.strengths import StrengthOption, read_strength


@method(
    "ewc",
    title="EWC: hold parameters where earlier tasks left them, by their Fisher information",
    paper="Kirkpatrick et al. 2017, arXiv:1612.00796",
    stores="r(o+i) per adapted matrix, and as much for F (per-task: twice as much), constant",
    cost="a few operations per trained parameter; per task one backward pass for each of n rows",
)
def ewc(
    *,
    lam: Annotated[
        StrengthOption, Default("λ = 400 is that of the TRACE repository; EasyCL has 10 000."), Search(40, 400, 4000)
    ] = 400.0,
    rho: RhoOption = None,
    samples: Annotated[int, Default("n = 200 rows is our choice; EasyCL has 100.", ours=True)] = 200,
    on: Annotated[
        Literal["lora", "all"],
        Default("``lora`` trains what the other methods train; the paper has all weights.", ours=True),
    ] = "lora",
    form: Annotated[
        Form, Default("``online`` needs no number of tasks known in advance and one F alone.", ours=True)
    ] = "online",
    gamma: Annotated[
        float | None,
        Default("It goes with ``form=online`` alone, which without it forgets nothing (γ = 1).", ours=True),
    ] = None,
) -> Method:
    """Build EWC.

    >>> ewc(samples=50).penalties[0].samples
    50
    >>> ewc(on="all").adapter.form
    'full'

    Raises:
        ConfigError: ``gamma`` without ``form=online``, ``rho`` beside a fixed ``lam``, or a budget on all weights.
    """
    if gamma is not None and form != "online":
        raise ConfigError(f"gamma is how form=online forgets; form={form} holds every task alike, leave gamma out")
    pull = Quadratic(lam=read_strength(lam, rho), samples=samples, form=form, gamma=1.0 if gamma is None else gamma)
    if on == "all" and isinstance(pull.lam, Budget):
        raise ConfigError("a budget is held against a prediction for low-rank updates; take on=lora, or a number")
    base = seqlora() if on == "lora" else seqft()
    return replace(base, name="ewc", penalties=(pull, *predictor(pull.lam)))
