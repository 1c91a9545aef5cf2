r"""Multiplication by a trained number, which sets the constant of a network of 1-Lipschitz layers.

Proposition 3.1 of Fazlyab et al. (2023): with slopes between :math:`\alpha` and :math:`\beta`,
their sum s, and :math:`W W^T \preceq (2 \rho / s^2)\, T^{-1}`, the layer :math:`\sqrt\rho\, x -
(s / \sqrt\rho)\, W^T T \phi(W x)` is :math:`\sqrt\rho`-Lipschitz. For positively homogeneous
activations, put :math:`W = \sqrt\rho\, V`: it is :math:`\sqrt\rho` times an SLL layer,
``nn.Sequential(SLLLinear(n, m), Rescale(rho**0.5))``. LipLT reads both parts.
"""

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from onelip.chains.linear_layers import scaled
from onelip.chains.value import Value
from onelip.forward_error import Local, Run
from onelip.forward_error import scaled as one_product
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact


class Rescale(LipschitzModule):
    """``factor * x``.

    Bound: ``|factor|``, exactly.
    Shape: any.
    Cost: elementwise.

    Args:
        factor: the first value.
        trained: make it a parameter; else it stays as it is.
        **factory: ``device`` and ``dtype`` of the factor.

    Raises:
        ValueError: an infinite or NaN factor.

    Example:
        >>> import onelip
        >>> model = nn.Sequential(onelip.layers.SLLLinear(4, 8), Rescale(1.5))
        >>> onelip.lipschitz_bound(onelip.export(model))
        tensor(1.5000, dtype=torch.float64)

    Reference: Fazlyab, Entesari, Roy, Chellappa, "Certified Robustness via Dynamic Margin
    Maximization and Improved Lipschitz Regularization", NeurIPS 2023, Proposition 3.1.
    """

    same_in_float64 = True

    def __init__(
        self, factor: float = 1.0, *, trained: bool = True, **factory: Unpack[FactoryOptions]
    ) -> None:
        super().__init__()
        if not math.isfinite(factor):
            raise ValueError(f"factor must be finite, got {factor}")
        number = torch.tensor(float(factor), **factory)
        self.factor = nn.Parameter(number, requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``factor * x``."""
        return x * self.factor

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return exact(self.factor).abs()

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a linear map."""
        return scaled(value, self.factor)

    def forward_error(self, run: Run) -> Local:
        """Rounding of one product."""
        return one_product(self, run)
