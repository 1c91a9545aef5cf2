"""Lipschitz margin training (Tsuzuku, Sato, Sugiyama, NeurIPS 2018)."""

from torch import Tensor
from torch.nn import functional as F

from onelip.losses.radius import RadiusLoss
from onelip.losses.reduction import Reduction, checked


class LipschitzMargin(RadiusLoss):
    r"""Cross-entropy after each rival i has the logit that it can reach within ``epsilon``.

    :math:`T \cdot \mathrm{CE}((z_i + \epsilon L_{yi}) / T, y)` at temperature T, with gradients
    through the constants as well: two classes that are hard to tell apart may move their rows of
    the head together. With all constants the same it is ``OffsetCrossEntropy``. On a 1-Lipschitz
    network with rows of length 1 it gave larger radii for the same accuracy, with constants of the
    head alone (``constants="head"`` of recipes).

    Shape: logits ``(batch, classes)``, labels ``(batch,)``, constants ``(classes, classes)`` to a
    scalar.

    Args:
        epsilon: the radius to train for, in units of the input.
        temperature: T, in units of the logits.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a negative epsilon, or a temperature that is not positive.

    Example:
        >>> import torch
        >>> constants = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
        >>> LipschitzMargin(0.5, 1.0)(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), constants)
        tensor(0.6931)

    Reference: Tsuzuku, Sato, Sugiyama, "Lipschitz-margin training: scalable certification of
    perturbation invariance for deep neural networks", NeurIPS 2018.
    """

    def __init__(
        self,
        epsilon: float = 36 / 255,
        temperature: float = 0.25,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not epsilon >= 0 or not temperature > 0:
            raise ValueError(
                f"epsilon >= 0 and temperature > 0 are asked, got {epsilon} and {temperature}"
            )
        self.epsilon, self.temperature = epsilon, temperature
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
        """The formula in the class docstring."""
        own = F.one_hot(labels, logits.shape[1]).bool()
        raised = logits + self.epsilon * constants[labels].masked_fill(own, 0)
        return self.temperature * F.cross_entropy(
            raised / self.temperature, labels, reduction=self.reduction
        )
