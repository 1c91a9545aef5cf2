"""Last-layer normalisation (LLN): a linear head whose rows have length 1."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import norms
from onelip.chains.linear_layers import dense
from onelip.chains.value import Value
from onelip.layers.constrained import orthogonal_, plain_linear
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule


class UnitNormLinear(LipschitzModule):
    """Linear head with rows of length 1, which need not be orthogonal.

    ``certify`` divides the margin between classes y and i by ``|w_y - w_i|`` instead of a bound for
    all pairs from the norm of the head; with rows of length 1 these distances are at most 2.

    Bound: the proved norm of the normalised weight, at most about ``sqrt(out_features)``.
    Shape: ``(batch, in_features)`` to ``(batch, out_features)``.
    Cost: a linear layer, and one normalisation of its weight.

    Args:
        in_features: size of the input.
        out_features: number of classes.
        bias: whether to add a vector.
        **factory: ``device`` and ``dtype`` of the parameters.

    Example:
        >>> UnitNormLinear(8, 10).weight.norm(dim=1).allclose(torch.ones(10))
        True

    Reference: Singla, Singla, Feizi, "Improved deterministic l2 robustness", ICLR 2022.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        self.raw_weight = nn.Parameter(torch.empty(out_features, in_features, **factory))
        self.bias = nn.Parameter(torch.zeros(out_features, **factory)) if bias else None
        orthogonal_(self.raw_weight)

    @property
    def weight(self) -> Tensor:
        """Weight in use, with rows of length 1."""
        return F.normalize(self.raw_weight, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + b`` with rows of W of length 1."""
        return F.linear(x, self.weight, self.bias)

    def lipschitz_bound(self) -> Tensor:
        """Proved norm of the weight in use."""
        return norms.dense(self.weight)

    def export(self) -> nn.Linear:
        """Return a plain linear layer with the weight in use."""
        return plain_linear(self.weight.detach(), self.bias)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a linear map."""
        return dense(value, self.weight, self.bias)
