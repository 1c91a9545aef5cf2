"""Cross-entropy that rewards certified radii (Singla, Singla, Feizi, ICLR 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked, reduced


class CertificateRegularized(nn.Module):
    """Cross-entropy minus ``gamma`` times the mean certified radius.

    The radius is ``max(0, f_y - max_i f_i) / constant``, 0 for misclassified samples. The loss is
    unbounded below, as larger logits lower it without end: use it for networks whose Lipschitz
    constant is bounded.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        gamma: weight of the radius.
        constant: Lipschitz constant of the difference of two logits; ``sqrt(2)`` for a 1-Lipschitz
            network, and ``|w_y - w_i|``, at most 2, with a head of rows of length 1.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a negative gamma, or a constant that is not positive.

    Example:
        >>> loss = CertificateRegularized(gamma=1.0, constant=2.0)
        >>> loss(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
        tensor(-50.)

    Reference: Singla, Singla, Feizi, "Improved deterministic l2 robustness on CIFAR-10 and
    CIFAR-100", ICLR 2022.
    """

    def __init__(
        self, gamma: float = 0.5, constant: float = 2**0.5, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        if not gamma >= 0 or not constant > 0:
            raise ValueError(f"gamma >= 0 and constant > 0 are asked, got {gamma} and {constant}")
        self.gamma, self.constant = gamma, constant
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, or one for each sample."""
        own = logits.gather(1, labels[:, None]).squeeze(1)
        rival = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        radius = F.relu(own - rival) / self.constant
        losses = F.cross_entropy(logits, labels, reduction="none") - self.gamma * radius
        return reduced(losses, self.reduction)
