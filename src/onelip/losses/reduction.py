"""What becomes of the losses of the samples of a batch."""

from typing import Literal

from torch import Tensor

Reduction = Literal["mean", "sum", "none"]
"""The mean of a batch, the sum, or one loss for each sample."""


def checked(reduction: Reduction) -> Reduction:
    """Return a reduction that exists.

    Raises:
        ValueError: another one.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction is "mean", "sum" or "none", got {reduction!r}')
    return reduction


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean or the sum of losses ``(batch,)``, or the losses themselves."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
