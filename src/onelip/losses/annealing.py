"""Logit annealing (Lai et al., ICML 2025)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked, reduced


class LogitAnnealing(nn.Module):
    r"""``-T (1 - p)^beta log p``: cross-entropy that fades for samples with a large margin.

    p is the softmax probability of the label, after an offset is subtracted from its logit, at
    temperature T. A Lipschitz network can give large margins to some samples only at the cost of
    others; as p tends to 1 the factor :math:`(1 - p)^\beta` removes the gradient. With beta 0 this
    is ``OffsetCrossEntropy``.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        offset: subtracted from the label's logit, in units of the logits.
        temperature: T, in units of the logits.
        beta: exponent of the fading factor.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a temperature that is not positive, or a negative beta.

    Example:
        >>> LogitAnnealing(0.0, 1.0, 1.0)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.3466)

    Reference: Lai et al., "Enhancing Certified Robustness via Block Reflector Orthogonal Layers and
    Logit Annealing Loss", ICML 2025.
    """

    def __init__(
        self,
        offset: float = 2.0,
        temperature: float = 0.75,
        beta: float = 5.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not temperature > 0 or not beta >= 0:
            raise ValueError(
                f"temperature > 0 and beta >= 0 are asked, got {temperature} and {beta}"
            )
        self.offset, self.temperature, self.beta = offset, temperature, beta
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        own = logits.gather(1, labels[:, None]).squeeze(1) - self.offset
        rivals = logits.scatter(1, labels[:, None], -torch.inf) / self.temperature
        lead = own / self.temperature - rivals.logsumexp(1)
        # p = sigmoid(lead) and 1 - p = sigmoid(-lead): both logarithms without cancellation
        fading = (self.beta * F.logsigmoid(-lead)).exp()
        return reduced(-self.temperature * fading * F.logsigmoid(lead), self.reduction)
