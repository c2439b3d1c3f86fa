"""Defines options that several methods share, each with the source of its default."""

from __future__ import annotations

from typing import Annotated, Literal

from everlora.core.defaults import Default
from everlora.core.roles import View

RhoOption = Annotated[
    float | None,
    Default("It goes with ``lam=auto`` alone, which without it looks for a share of 0.03 of the gradient.", ours=True),
]
PerModule = Annotated[
    bool, Default("It goes with ``lam=auto`` alone, which without it finds one λ for all modules.", ours=True)
]

TrainPast = Annotated[
    View, Default("A task is trained on the plain sum of earlier updates; PS-LoRA's text leaves this open.", ours=True)
]
Infer = Annotated[
    View,
    Default(
        "Answers come from the merge after every task, the newest one included; PS-LoRA's text leaves this open.",
        ours=True,
    ),
]

Ratio = Annotated[float, Default("ρ = 0.02 is that of ELLA's results table, and of DATA's code.")]
Mode = Annotated[
    Literal["lora", "full"],
    Default("``lora`` trains at the same rank as the methods it is compared with.", ours=True),
]
