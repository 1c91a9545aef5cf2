"""Base class of losses that need the features and the head of a network."""

import abc
from collections.abc import Callable

from torch import Tensor, nn

PairCurvature = Callable[[Tensor, Tensor], Tensor]
"""Function of two lists of classes to the downward curvature of each logit difference."""


class HeadLoss(nn.Module, abc.ABC):
    """A loss of the features before the head, and of the head, in place of the logits."""

    @abc.abstractmethod
    def forward(
        self, features: Tensor, labels: Tensor, head: nn.Module, curvature: PairCurvature | None
    ) -> Tensor:
        """Return the loss, a scalar.

        Args:
            features: ``(batch, features)``.
            labels: ``(batch,)``.
            head: the map from features to logits.
            curvature: curvature of the head; None for a linear one.
        """
