"""Certified radius maximisation (Fazlyab, Entesari, Roy, Chellappa, NeurIPS 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip.losses.radius import RadiusLoss
from onelip.losses.reduction import Reduction, checked, reduced


class CRM(RadiusLoss):
    r"""Cross-entropy, minus the soft certified radius of correct samples with a small radius.

    The radius :math:`\min_i (z_y - z_i) / L_{yi}` (equation 5) is replaced by its soft lower bound
    :math:`-\frac1t \log \sum_i \exp(-t (z_y - z_i) / L_{yi})` (equation 6). For correct samples
    with a radius below ``radius`` it is maximised, with gradients through logits and constants; the
    others have cross-entropy alone (equation 8).

    Shape: logits ``(batch, classes)``, labels ``(batch,)``, constants ``(classes, classes)`` to a
    scalar.

    Args:
        radius: r0, up to which radii are rewarded, in units of the input.
        weight: lambda, factor of the radii.
        temperature: t of the soft minimum: the larger, the closer to the minimum.
        start_epoch: number of first epochs with plain cross-entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a radius or temperature that is not positive, a negative weight or epoch.

    Example:
        >>> constants = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
        >>> loss = CRM(radius=1.0, weight=10.0, temperature=5.0)
        >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), constants)  # 0.3133 - 10 * 0.5
        tensor(-4.6867)
    """

    def __init__(
        self,
        radius: float = 2.2,
        weight: float = 30.0,
        temperature: float = 5.0,
        start_epoch: int = 10,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not radius > 0 or not temperature > 0:
            raise ValueError(
                f"radius and temperature must be positive, got {radius} and {temperature}"
            )
        if not weight >= 0 or start_epoch < 0:
            raise ValueError(
                f"weight and start_epoch must not be negative, got {weight} and {start_epoch}"
            )
        self.radius, self.weight, self.temperature = radius, weight, temperature
        self.start_epoch, self.reduction = start_epoch, checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
        """The formula in the class docstring."""
        radii = rival_radii(logits, labels, constants)
        # the label's radius is infinite and drops out of the sum
        soft = -torch.logsumexp(-self.temperature * radii, 1) / self.temperature
        hard = radii.amin(1)
        close = (hard > 0) & (hard < self.radius)
        gained = torch.where(close, soft, 0.0)
        losses = F.cross_entropy(logits, labels, reduction="none") - self.weight * gained
        return reduced(losses, self.reduction)


def rival_radii(logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
    """Return ``(z_y - z_i) / L_yi`` for every class i, ``(batch, classes)``; infinity for y."""
    margins = logits.gather(1, labels[:, None]) - logits
    own = F.one_hot(labels, logits.shape[1]).bool()
    slopes = torch.where(own, 1.0, constants[labels])
    return torch.where(own, torch.inf, margins / slopes)
