"""Base class of losses that use the Lipschitz constants of logit differences."""

import abc

from torch import Tensor, nn


class RadiusLoss(nn.Module, abc.ABC):
    """A loss of certified radii, from the logits and the constants of their differences."""

    start_epoch: int = 0
    """Number of first epochs with plain cross-entropy."""

    @abc.abstractmethod
    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)``.
            constants: ``(classes, classes)``, Lipschitz constants of the logit differences.
        """
