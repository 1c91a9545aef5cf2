"""Losses that look into the head of a network."""

import abc
from collections.abc import Callable

from torch import Tensor, nn

PairCurvature = Callable[[Tensor, Tensor], Tensor]
"""Called with two lists of classes, says how much each difference of logits bends downwards."""


class HeadLoss(nn.Module, abc.ABC):
    """A loss that is given the features in front of the head, and the head, for the logits."""

    @abc.abstractmethod
    def forward(
        self, features: Tensor, labels: Tensor, head: nn.Module, curvature: PairCurvature | None
    ) -> Tensor:
        """The loss.

        Args:
            features: ``(batch, features)``.
            labels: ``(batch,)``.
            head: from features to logits.
            curvature: of the head; None for a linear one.
        """
