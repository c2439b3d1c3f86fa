"""Declares what a task trains, and how what it has trained joins the past."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import ClassVar, Literal

from everlora.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Declares what a task trains; another form than LoRA is a subclass (`everlora.parts.forms_osf`, say).

    >>> Adapter(policy="continue").learning_rate, Adapter(form="svd").learning_rate
    (0.003, 0.01)

    Attributes:
        policy: ``new``, fresh and on top of everything learned before; or ``continue``, one that every task trains on.
        form: ``plain`` B A (PEFT's LoRA), ``svd`` U Σ V (PEFT's AdaLoRA without its rank allocation), or one that is
            no low-rank update; `everlora.adapters` has a backend for each.
        unit: with ``svd``, take the scale 1 instead of alpha / r.
        fixed: the factor of the pair that is not trained, if one is not.
    """

    noun: ClassVar[str] = "adapter"
    """What it is, in words."""
    whole_model: ClassVar[bool] = False
    """Whether a task's folder, and the run folder itself, is a whole model."""
    loads_with_peft: ClassVar[bool] = True
    """Whether these folders load with `peft.PeftModel.from_pretrained`."""

    policy: Literal["new", "continue"] = "new"
    form: str = "plain"
    unit: bool = False
    fixed: Literal["", "A", "B"] = ""

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse an attribute that is nearly the name of one of ours and that nobody would read.

        Raises:
            ConfigError: there is one; the sentence names what was meant.
        """
        super().__init_subclass__(**options)
        known = {name for base in cls.__mro__[1:] for name in (*vars(base), *vars(base).get("__annotations__", {}))}
        for name in {**vars(cls), **vars(cls).get("__annotations__", {})}:
            close = difflib.get_close_matches(name, [one for one in known if not one.startswith("_")], 1, 0.84)
            if close and not name.startswith("_") and name not in known:
                raise ConfigError(
                    f"the adapter form {cls.__name__} sets {name!r}, which nobody reads; did you mean {close[0]!r}?"
                )

    @property
    def learning_rate(self) -> float:
        """Return the rate that this form wants under AdamW, taken where a user names none.

        LoRA pairs 3e-3, at a scale alpha / r of 1: on dev rows of Standard (MiniLM, 48 steps of 16 rows) they learn
        within one point of the best of alpha 1 to 32 and rates from 1e-3 to 3e-2 (docs/defaults.md). Triplets U Σ V
        1e-2. Papers' protocols have their own.
        """
        return 1e-2 if self.form == "svd" else 3e-3

    @property
    def low_rank(self) -> bool:
        """Return whether what is trained is an update of low rank of each adapted matrix."""
        return self.form in ("plain", "svd")

    @property
    def adds(self) -> bool:
        """Return whether what is learned is a change of weights, the same for every input, so that it can be added."""
        return self.loads_with_peft

    @property
    def own_loss(self) -> bool:
        """Return whether the form adds a term to the loss that is no function of the model's outputs."""
        return False

    @property
    def rows_answer(self) -> bool:
        """Return whether the rows of what is trained make the outputs of layers, one each."""
        return self.low_rank or self.whole_model


RULES = " (sum: a new adapter for every task, added up; continue: one, trained on; keep: one per task, by task id)"
"""What the rules of consolidators mean, for whoever has joined two that differ."""


@dataclass(frozen=True, kw_only=True)
class Consolidator:
    """Declares how a finished update joins the past.

    >>> Consolidator().rule
    'sum'

    Attributes:
        rule: ``sum`` folds it into the weights used from now on; ``continue`` keeps the one adapter as it is;
            ``keep`` leaves one adapter per task side by side and chooses by task id.
    """

    rule: Literal["sum", "continue", "keep"] = "sum"

    def stored_elements(self, tasks: int, adapter: int) -> int:
        """Return how many elements are stored after ``tasks`` tasks if one adapter has ``adapter`` elements."""
        return adapter if self.rule == "continue" else tasks * adapter
