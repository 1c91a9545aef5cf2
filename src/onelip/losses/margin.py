"""Margin losses; without a margin, certified radii stay small."""

from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked


class MarginHinge(nn.Module):
    """Multi-class hinge loss: the mean over rivals i of ``max(0, margin - (f_y - f_i))``.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        margin: in units of the logits; 0.7 in the Convex Potential paper. For a 1-Lipschitz network
            a margin of ``sqrt(2) eps`` certifies the radius eps.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> MarginHinge(1.0)(torch.tensor([[0.5, 0.0]]), torch.tensor([0]))
        tensor(0.2500)
    """

    def __init__(self, margin: float = 0.7, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.margin, self.reduction = margin, checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; torch divides by the number of classes, as the paper's code."""
        return F.multi_margin_loss(logits, labels, margin=self.margin, reduction=self.reduction)


class OffsetCrossEntropy(nn.Module):
    """Cross-entropy at temperature T, after an offset is subtracted from the label's logit.

    ``T * cross_entropy((f - offset e_y) / T, y)``: a large offset enforces a large margin. For
    a small T the gradient vanishes for samples that have it.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        offset: subtracted from the label's logit, in units of the logits.
        temperature: T, in units of the logits.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Reference: Prach, Lampert, "Almost-Orthogonal Layers", ECCV 2022.

    Example:
        >>> import torch
        >>> OffsetCrossEntropy(0.0, 1.0)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """

    def __init__(
        self, offset: float = 2**0.5, temperature: float = 0.25, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.offset, self.temperature = offset, temperature
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        moved = logits - self.offset * F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return self.temperature * F.cross_entropy(
            moved / self.temperature, labels, reduction=self.reduction
        )
