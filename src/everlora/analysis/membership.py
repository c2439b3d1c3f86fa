"""Measures how well rows that a model was trained on are told from others by their losses alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def membership_auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Return the probability that a member has the lower loss of the two, ties counting half: the AUC of the attack.

    0.5 is chance. Yeom et al., Privacy risk in machine learning (2018), guess membership by the loss in this way.

    Args:
        members: losses of rows that were trained on.
        others: losses of rows that were not.

    >>> membership_auc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    a, b = torch.tensor(members, dtype=torch.float64), torch.tensor(others, dtype=torch.float64)
    lower, equal = (a[:, None] < b).double(), (a[:, None] == b).double()
    return float((lower + equal / 2).mean())
