"""Generalized cross-entropy (Zhang, Sabuncu, NeurIPS 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked, reduced


class GeneralizedCrossEntropy(nn.Module):
    """``T (1 - p^q) / q``, between cross-entropy (q to 0) and the mean absolute error (q = 1).

    p is the softmax probability of the label, after an offset is subtracted from its logit, at
    temperature T, as in ``OffsetCrossEntropy``, which is the limit q to 0. The gradient of a sample
    is that of its cross-entropy times ``p^q``: badly misclassified samples have less weight.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        q: exponent in (0, 1].
        offset: subtracted from the label's logit, in units of the logits.
        temperature: T, in units of the logits.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: q outside (0, 1], or a temperature that is not positive.

    Example:
        >>> GeneralizedCrossEntropy(1.0)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.5000)

    Reference: Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks
    with Noisy Labels", NeurIPS 2018.
    """

    def __init__(
        self,
        q: float = 0.7,
        offset: float = 0.0,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}; its limit 0 is OffsetCrossEntropy")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.q, self.offset, self.temperature = q, offset, temperature
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        moved = logits - self.offset * F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        log_p = (moved / self.temperature).log_softmax(1).gather(1, labels[:, None])
        # expm1: 1 - p^q without cancellation for p close to 1
        losses = -self.temperature / self.q * torch.expm1(self.q * log_p).squeeze(1)
        return reduced(losses, self.reduction)
