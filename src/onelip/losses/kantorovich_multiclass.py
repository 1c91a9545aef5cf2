"""Multi-class forms of HKR that weigh the strongest rivals most, and the hinge on the margin."""

import math

import torch
from torch import Tensor, nn

from onelip.losses.kantorovich import by_sample, checked_alpha, signs
from onelip.losses.reduction import Reduction, checked, reduced


def _checked_positive(name: str, number: float) -> float:
    if not number > 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


class SoftHKR(nn.Module):
    r"""HKR in which the other classes count by a softmax of their scores.

    :math:`\sum_i w_i (\alpha \max(0, m / 2 - s_i f_i) - (1 - \alpha) s_i f_i)` with s = 1 and w = 1
    for the label, and s = -1 and the softmax of :math:`\tau f` over the others. The factor
    :math:`\tau` is ``temperature * m / max(m, mean |f|)``, of the batch, in [0.005, 250], and takes
    no gradient. deel-torchlip's loss has a moving mean there, which is this one for its
    ``alpha_mean=0``.

    Shape: scores ``(batch, classes)``, labels ``(batch,)`` or ``(batch, classes)``, to a scalar.

    Args:
        alpha: weight of the hinge, between 0 and 1.
        margin: m, in units of the scores.
        temperature: a larger one counts the strongest rival more.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: alpha outside [0, 1], a margin or temperature that is not positive.

    Example:
        >>> SoftHKR(alpha=0.0)(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
        tensor(-3.)

    Reference: Serrurier et al., "On the explainable properties of 1-Lipschitz neural networks: an
    optimal transport perspective", NeurIPS 2023.
    """

    def __init__(
        self,
        alpha: float = 0.9,
        margin: float = 1.0,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.alpha, self.margin = checked_alpha(alpha), _checked_positive("margin", margin)
        self.temperature = _checked_positive("temperature", temperature)
        self.reduction = checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        sign = signs(scores, labels)
        mean = scores.detach().abs().mean().clamp(min=self.margin)
        factor = (self.temperature * self.margin / mean).clamp(0.005, 250)
        lowest = torch.finfo(scores.dtype).min
        others = torch.where(sign > 0, lowest, factor * scores).softmax(1)
        weights = torch.where(sign > 0, 1.0, others)
        signed = sign * scores
        each = self.alpha * (self.margin / 2 - signed).relu() - (1 - self.alpha) * signed
        return reduced((weights * each).sum(1), self.reduction)


class LseHKR(nn.Module):
    r"""HKR of the label's score against a soft maximum of the others.

    With :math:`g = \log \sum_{i \ne y} e^{t f_i} / t` and
    :math:`t = 2 \log(\text{classes} - 1) / (p m)`, which exceeds the largest of them by at most
    :math:`p m / 2`: :math:`\alpha (\max(0, m / 2 - f_y) + \max(0, m / 2 + g)) - (1 - \alpha)
    (f_y - g)`. Of two classes g is the other score.

    Shape: scores ``(batch, classes)``, labels ``(batch,)`` or ``(batch, classes)``, to a scalar.

    Args:
        alpha: weight of the hinge, between 0 and 1.
        margin: m, in units of the scores times ``temperature``.
        temperature: factor of the scores.
        penalty: p.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: alpha outside [0, 1], or another argument that is not positive.

    Example:
        >>> LseHKR(alpha=0.0)(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
        tensor(-3.)
    """

    def __init__(
        self,
        alpha: float = 0.9,
        margin: float = 1.0,
        temperature: float = 1.0,
        penalty: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.alpha, self.margin = checked_alpha(alpha), _checked_positive("margin", margin)
        self.temperature = _checked_positive("temperature", temperature)
        self.penalty, self.reduction = _checked_positive("penalty", penalty), checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        of_label = signs(scores, labels) > 0
        scores = self.temperature * scores
        own = torch.where(of_label, scores, 0).sum(1)
        factor = 2 * math.log(max(2, scores.shape[1] - 1)) / (self.penalty * self.margin)
        others = torch.where(of_label, -math.inf, factor * scores).logsumexp(1) / factor
        half = self.margin / 2
        hinge = (half - own).relu() + (half + others).relu()
        each = self.alpha * hinge - (1 - self.alpha) * (own - others)
        return reduced(each, self.reduction)


class RunnerUpHinge(nn.Module):
    """Hinge loss of the margin: the mean of ``max(0, margin - (f_y - max_i f_i))``, i not y.

    Shape: scores ``(batch, classes)``, labels ``(batch,)`` or ``(batch, classes)``, to a scalar.

    Args:
        margin: in units of the scores.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> RunnerUpHinge()(torch.tensor([[2.0, 1.5, -1.0]]), torch.tensor([0]))
        tensor(0.5000)
    """

    def __init__(self, margin: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.margin, self.reduction = margin, checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        of_label = signs(scores, labels) > 0
        own = torch.where(of_label, scores, 0).sum(1)
        runner_up = torch.where(of_label, -math.inf, scores).amax(1)
        return reduced((self.margin - (own - runner_up)).relu(), self.reduction)


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy at a temperature T: the mean of ``T log(1 + exp(-y f / T))``, y = +-1.

    Several scores are taken as each class against the rest, and averaged.

    Shape: as ``KR``.

    Args:
        temperature: T, in units of the scores; 1 / tau of deel-torchlip.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a temperature that is not positive.

    Example:
        >>> BinaryCrossEntropy()(torch.tensor([0.0]), torch.tensor([1]))
        tensor(0.6931)
    """

    def __init__(self, temperature: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.temperature = _checked_positive("temperature", temperature)
        self.reduction = checked(reduction)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        signed = signs(scores, labels) * scores
        each = self.temperature * nn.functional.softplus(-signed / self.temperature, threshold=1e4)
        return reduced(by_sample(each), self.reduction)
