"""Cosine losses: the angle between the logits and the label's axis."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked, reduced


class Cosine(nn.Module):
    r"""Minus the cosine between the logits and the label's axis, and a penalty of small radii.

    :math:`-(1 - \gamma) f_y / |f| + \gamma \sum_{i \ne y} c_i e^{c_i} / \sum_{j \ne y} e^{c_j}`
    with :math:`c_i = \max(0, \epsilon - (f_y - f_i) / L)`, by how much the radius against class i
    falls short of eps.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        gamma: weight of the penalty, between 0 and 1; 0 for the cosine alone, 0.1 in orthogonium.
        epsilon: the radius asked for, in units of the input.
        constant: L, of the differences of two logits: ``sqrt(2)`` for a 1-Lipschitz network, 2 for
            rows of length 1 on top of one.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: gamma outside [0, 1], epsilon below 0, or a constant that is not positive.

    Example:
        >>> Cosine()(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
        tensor(-0.8000)
    """

    def __init__(
        self,
        gamma: float = 0.0,
        epsilon: float = 36 / 255,
        constant: float = 2**0.5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not 0 <= gamma <= 1 or not epsilon >= 0 or not constant > 0:
            raise ValueError(
                "gamma in [0, 1], epsilon >= 0 and constant > 0 are asked, got "
                f"{gamma}, {epsilon} and {constant}"
            )
        self.gamma, self.epsilon, self.constant = gamma, epsilon, constant
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        own = logits.gather(1, labels[:, None])
        cosine = F.normalize(logits, dim=1, eps=1e-8).gather(1, labels[:, None]).squeeze(1)
        if not self.gamma:
            return reduced(-cosine, self.reduction)
        short = (self.epsilon - (own - logits) / self.constant).relu()
        weights = short.scatter(1, labels[:, None], -torch.inf).softmax(1)
        penalty = (weights * short).sum(1)
        return reduced(self.gamma * penalty - (1 - self.gamma) * cosine, self.reduction)
