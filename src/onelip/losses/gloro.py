"""Globally robust networks (Leino, Wang, Fredrikson, ICML 2021)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip.errors import UsageError
from onelip.losses.radius import RadiusLoss
from onelip.losses.reduction import Reduction, checked, reduced


class GloRo(RadiusLoss):
    r"""Cross-entropy, plus the divergence to the logits extended by one for "not robust".

    The extra logit is the largest that another class can reach within ``epsilon``:
    :math:`\max_{i \ne j} z_i + \epsilon L_{ji}`, j the prediction. It is the largest exactly where
    the certificate fails. ``weight`` times the Kullback-Leibler divergence of the two distributions
    keeps its probability low, as TRADES does with attacks.

    Shape: logits ``(batch, classes)``, labels ``(batch,)``, constants ``(classes, classes)`` to a
    scalar.

    Args:
        epsilon: the radius to certify, in units of the input.
        weight: factor of the divergence.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a negative epsilon or weight.

    Example:
        >>> constants = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
        >>> GloRo(epsilon=0.5).extended(torch.tensor([[1.5, 0.0]]), constants)
        tensor([[1.5000, 0.0000, 1.0000]])
    """

    def __init__(
        self, epsilon: float = 36 / 255, weight: float = 1.5, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        if not epsilon >= 0 or not weight >= 0:
            raise ValueError(f"epsilon and weight must not be negative, got {epsilon} and {weight}")
        self.epsilon, self.weight = epsilon, weight
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
        """The formula in the class docstring."""
        known = F.log_softmax(logits, 1)
        # The divergence of p from the extended q; p has no mass on the extra class.
        extended = F.log_softmax(self.extended(logits, constants), 1)[:, :-1]
        divergence = (known.exp() * (known - extended)).sum(1)
        losses = F.cross_entropy(logits, labels, reduction="none") + self.weight * divergence
        return reduced(losses, self.reduction)

    def extended(self, logits: Tensor, constants: Tensor) -> Tensor:
        """The logits, and the extra one after them."""
        if logits.shape[1] < 2:
            raise UsageError("one class has no rival")
        predicted = logits.argmax(1)
        raised = logits + self.epsilon * constants[predicted]
        rival = raised.scatter(1, predicted[:, None], -torch.inf).amax(1, keepdim=True)
        return torch.cat([logits, rival], 1)
