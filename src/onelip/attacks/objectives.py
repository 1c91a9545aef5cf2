"""Objectives that gradient attacks maximise: one number per image, positive where it is broken.

With targets, the image is to become one of a given class; without, any wrong one counts.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.errors import UsageError

Loss = Literal["margin", "cross-entropy", "dlr"]

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits ``(n, classes)``, labels and targets ``(n,)`` to values ``(n,)``."""


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The target's logit, or the largest other one, minus the label's."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    if targets is None:
        return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own
    return logits.gather(1, targets[:, None]).squeeze(1) - own


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The cross-entropy of the labels, or minus that of the targets."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The margin by a difference of ordered logits: no scale of the logits can flatten it.

    Croce and Hein (2020), section 4 and eq. (7); of three logits or two, whose differences are
    all margins, it is the margin.
    """
    numerator = margin(logits, labels, targets)
    if logits.shape[1] < 4:
        return numerator
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    spread = first - (third if targets is None else (third + fourth) / 2)
    return numerator / spread.clamp_min(torch.finfo(logits.dtype).tiny ** 0.5)


OBJECTIVES: dict[str, Objective] = {
    "margin": margin,
    "cross-entropy": cross_entropy,
    "dlr": dlr,
}


def objective(loss: str) -> Objective:
    """The objective of a name, or `UsageError`."""
    if loss not in OBJECTIVES:
        raise UsageError(f"unknown loss {loss!r}: choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[loss]


def other_classes(logits: Tensor, labels: Tensor, count: int) -> list[Tensor]:
    """Up to ``count`` classes per image, the one with the largest logit first, never the label."""
    others = logits.nan_to_num(nan=-torch.inf).scatter(1, labels[:, None], -torch.inf)
    ranked = others.topk(min(count, logits.shape[1] - 1), dim=1).indices
    return list(ranked.unbind(1))
