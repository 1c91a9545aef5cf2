"""Losses that know the Lipschitz constants of logit differences."""

import abc

from torch import Tensor, nn


class RadiusLoss(nn.Module, abc.ABC):
    """A loss on certified radii: it is given the constants beside the logits."""

    start_epoch: int = 0
    """Epochs of plain cross-entropy before the constants count."""

    @abc.abstractmethod
    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
        """The loss.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)``.
            constants: ``(classes, classes)``, of the differences of two logits.
        """
