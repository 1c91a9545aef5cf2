"""Objectives that gradient attacks maximise: one number per image, positive where it is broken.

With targets, a given class is the goal; without, any wrong class counts.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.errors import UsageError

Loss = Literal["margin", "cross-entropy", "dlr"]

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Function of logits ``(n, classes)``, labels and targets ``(n,)`` to values ``(n,)``."""


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the logit of the target, or the largest other one, minus the label's."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    if targets is None:
        return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own
    return logits.gather(1, targets[:, None]).squeeze(1) - own


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of the labels, or minus that of the targets."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the margin divided by a difference of ordered logits: independent of their scale.

    Difference of logits ratio, Croce and Hein (2020), section 4 and eq. (7). For two or three
    logits, whose differences are all margins, it is the margin itself.
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
    """Return the objective of a name.

    Raises:
        UsageError: If the name is unknown.
    """
    if loss not in OBJECTIVES:
        raise UsageError(f"unknown loss {loss!r}: choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[loss]


def other_classes(logits: Tensor, labels: Tensor, count: int) -> list[Tensor]:
    """Return up to ``count`` classes per image, largest logit first, never the label."""
    others = logits.nan_to_num(nan=-torch.inf).scatter(1, labels[:, None], -torch.inf)
    ranked = others.topk(min(count, logits.shape[1] - 1), dim=1).indices
    return list(ranked.unbind(1))
