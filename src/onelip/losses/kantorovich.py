"""Losses of the Kantorovich-Rubinstein dual, with a hinge (Serrurier et al., CVPR 2021)."""

import torch
from torch import Tensor, nn

from onelip.errors import UsageError
from onelip.losses.reduction import Reduction, checked, reduced


def signs(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where a score belongs to its sample's class, and -1 elsewhere, as the scores.

    Args:
        scores: ``(batch,)``, ``(batch, 1)``, or ``(batch, classes)``.
        labels: classes, ``(batch,)`` integers; or of the scores' shape, where what is positive
            counts as 1 (0 and 1, -1 and 1, booleans). One score a sample takes 0 and 1, or -1 and
            1, in either shape.

    Raises:
        UsageError: labels of another shape, or classes that are not integers.
    """
    if labels.shape == scores.shape:
        positive = labels > 0
    elif labels.ndim == 1 and len(labels) == len(scores) and scores.ndim == 2:
        if scores.shape[1] == 1:
            positive = labels[:, None] > 0
        elif labels.is_floating_point():
            raise UsageError(f"classes must be integers, got {labels.dtype}")
        else:
            positive = labels[:, None] == torch.arange(scores.shape[1], device=labels.device)
    else:
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit scores of {tuple(scores.shape)}: "
            "give classes (batch,), or one label for each score"
        )
    return torch.where(positive, 1, -1).to(scores.dtype)


def _weights(sign: Tensor) -> Tensor:
    """Weights whose mean product with scores is ``E[f | 1] - E[f | -1]``; 0 for what is empty."""
    count = len(sign)
    positive = (sign > 0).sum(0)
    return torch.where(
        sign > 0, count / positive.clamp_min(1), -count / (count - positive).clamp_min(1)
    ).to(sign.dtype)


def checked_alpha(alpha: float) -> float:
    """Return the weight of a hinge, if it is one.

    Raises:
        ValueError: it is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is between 0 and 1, got {alpha}")
    return alpha


def by_sample(losses: Tensor) -> Tensor:
    """Mean over the scores of a sample."""
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def _hinge(scores: Tensor, labels: Tensor, sign: Tensor, margin: float) -> Tensor:
    """``max(0, margin / 2 - y f)``; of classes, that of the label weighs as much as all others."""
    hinge = (margin / 2 - sign * scores).relu()
    if labels.shape == scores.shape or scores.shape[1:] == (1,):
        return hinge
    return hinge * torch.where(sign > 0, scores.shape[1] - 1, 1)


class KR(nn.Module):
    r"""Minus the Kantorovich-Rubinstein estimate of a Wasserstein-1 distance.

    :math:`E[f \mid y = -1] - E[f \mid y = 1]`: for a 1-Lipschitz f its opposite is at most the
    distance of the two classes, and training raises it. Several scores are taken as each class
    against the rest, and averaged.

    Shape: scores ``(batch,)``, ``(batch, 1)`` or ``(batch, classes)`` and labels, see ``signs``, to
    a scalar; with reduction ``"none"`` to ``(batch,)``, whose mean it is.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> KR()(torch.tensor([3.0, 1.0, -1.0]), torch.tensor([1, 0, 0]))
        tensor(-3.)

    Reference: Serrurier et al., "Achieving robustness in classification using optimal transport
    with hinge regularization", CVPR 2021.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        weights = _weights(signs(scores, labels))
        return reduced(by_sample(-weights * scores), self.reduction)


class HingeMargin(nn.Module):
    """Hinge loss of each score on its own: the mean of ``max(0, margin / 2 - y f)``, y = -1 or 1.

    Labels that are classes take the score of the label as often as there are other classes, so that
    either side has the same weight; labels for each score are as they are.

    Shape: as ``KR``.

    Args:
        margin: between the two signs, in units of the scores.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> HingeMargin(margin=2.0)(torch.tensor([0.5, -3.0]), torch.tensor([1, -1]))
        tensor(0.2500)
    """

    def __init__(self, margin: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.margin, self.reduction = margin, checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        hinge = _hinge(scores, labels, signs(scores, labels), self.margin)
        return reduced(by_sample(hinge), self.reduction)


class HKR(nn.Module):
    r"""The hinge and the Kantorovich-Rubinstein loss together.

    :math:`\alpha` ``HingeMargin`` + :math:`(1 - \alpha)` ``KR``. The hinge asks for margins, the
    rest for the largest gap that a 1-Lipschitz function has between the classes.

    Shape: as ``KR``.

    Args:
        alpha: weight of the hinge, between 0 and 1.
        margin: of the hinge, in units of the scores.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: alpha outside [0, 1].

    Example:
        >>> HKR(alpha=0.5, margin=2.0)(torch.tensor([0.5, -3.0]), torch.tensor([1, -1]))
        tensor(-1.6250)

    Reference: Serrurier et al., "Achieving robustness in classification using optimal transport
    with hinge regularization", CVPR 2021.
    """

    def __init__(
        self, alpha: float = 0.9, margin: float = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.alpha, self.margin = checked_alpha(alpha), margin
        self.reduction = checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        sign = signs(scores, labels)
        hinge = _hinge(scores, labels, sign, self.margin)
        both = self.alpha * hinge - (1 - self.alpha) * _weights(sign) * scores
        return reduced(by_sample(both), self.reduction)
