"""Weighted sums of convex potentials."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.flows.potential import Potential, curvature
from onelip.norms.rounding import downward, upward


class SumPotential(Potential):
    """``sum_i c_i f_i(x)`` with fixed c_i > 0.

    Bound: curvature between ``sum_i c_i mu_i`` and ``sum_i c_i L_i``.
    Shape: that of the parts.
    Cost: that of the parts.

    Args:
        parts: potentials on the same space.
        weights: the c_i, rounded to float32; 1 by default.

    Raises:
        ValueError: no parts, another number of weights, or a weight that is not
            positive and finite.

    Example:
        >>> from onelip.flows import QuadraticPotential, RidgeLinear
        >>> potential = SumPotential([QuadraticPotential(3), RidgeLinear(3, 5)], [0.5, 2.0])
        >>> potential(torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, parts: Sequence[Potential], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        given = [1.0] * len(parts) if weights is None else weights
        self.weights: list[float] = torch.tensor(given, dtype=torch.float32).tolist()
        if not parts or len(given) != len(parts):
            raise ValueError(f"{len(parts)} parts need as many weights, got {len(given)}")
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights must be positive and finite, got {given}: leave parts out")
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``sum_i c_i f_i(x)`` for each sample."""
        return self._sum([part(x) for part in self._potentials()])

    @override
    def gradient(self, x: Tensor) -> Tensor:
        return self._sum([part.gradient(x) for part in self._potentials()])

    def smoothness(self) -> Tensor:
        """Proved upper bound ``sum_i c_i L_i``."""
        parts = [curvature(part)[1] for part in self._potentials()]
        # one rounding per product and one per sum
        return upward(self._sum(parts), 2 * len(parts))

    @override
    def convexity(self) -> Tensor:
        parts = [curvature(part)[0] for part in self._potentials()]
        return downward(self._sum(parts), 2 * len(parts))

    def _potentials(self) -> list[Potential]:
        """Parts of the sum."""
        return cast(list[Potential], list(self.parts))

    def _sum(self, values: Sequence[Tensor]) -> Tensor:
        """Weighted sum of one value per part."""
        scaled = [weight * value for weight, value in zip(self.weights, values, strict=True)]
        return torch.stack(scaled).sum(0)
