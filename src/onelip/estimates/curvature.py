"""Curvature of the differences of two logits of an MLP head, estimated with gradients."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.activations import Interval

POWER_STEPS = 2


class CurvatureEstimate(nn.Module):
    r"""Estimates of the numbers that ``onelip.bounds.head_curvature`` proves, from below.

    Power steps on :math:`W^T \mathrm{diag}(u) W`, whose vectors are kept from call to call, and the
    Rayleigh quotient at their end, which is differentiated as if the vectors did not move.

    Cost: ``POWER_STEPS + 1`` products with the inner weight and its transpose, one row per pair.

    Args:
        features: size of the head's input.
        classes: number of logits.
        interval: of the second derivative of the activation.

    Example:
        >>> estimate = CurvatureEstimate(4, 3, (0.0, 0.25))
        >>> one, two = torch.tensor([0]), torch.tensor([1])
        >>> estimate(torch.ones(5, 4), torch.zeros(3, 5), one, two)
        tensor([0.])
    """

    vectors: Tensor

    def __init__(self, features: int, classes: int, interval: Interval) -> None:
        super().__init__()
        self.interval = interval
        start = F.normalize(torch.randn(classes, classes, features), dim=2)
        self.register_buffer("vectors", start)

    def forward(self, inner: Tensor, outer: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Largest downward curvature of ``z_first - z_second``, ``(pairs,)``.

        Args:
            inner: ``(hidden, features)``.
            outer: ``(classes, hidden)``.
            first: ``(pairs,)`` classes.
            second: ``(pairs,)`` classes.
        """
        low, high = self.interval
        difference = outer[second] - outer[first]
        bend = torch.maximum(difference * low, difference * high).clamp_min(0)
        with torch.no_grad():
            vector = self.vectors[first, second]
            for _ in range(POWER_STEPS):
                vector = F.normalize((F.linear(vector, inner) * bend) @ inner, dim=1)
            if self.training:
                self.vectors[first, second] = vector
        return (bend * F.linear(vector, inner).square()).sum(1)
