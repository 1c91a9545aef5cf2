"""Leaky ReLU with trained slopes that are kept between -1 and 1."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.chains.value import Value
from onelip.forward_error import Local, Run
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule, read_module, rounding_of
from onelip.norms.rounding import exact


class LPReLU(LipschitzModule):
    """``nn.PReLU`` with the slopes in use clamped to [-1, 1].

    A slope that training pushes out of the interval stays at its end.

    Bound: 1, attained on positive numbers.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: elementwise; exported to ``nn.PReLU``.

    Args:
        num_parameters: 1, or the number of channels.
        init: first value of the slopes.
        **factory: ``device`` and ``dtype`` of the slopes.

    Raises:
        ValueError: no parameter.

    Example:
        >>> LPReLU(init=-2.0)(torch.tensor([[-3.0, 2.0]])).detach()
        tensor([[3., 2.]])
    """

    same_in_float64 = True

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, **factory: Unpack[FactoryOptions]
    ) -> None:
        super().__init__()
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be positive, got {num_parameters}")
        self.num_parameters = num_parameters
        self.raw_weight = nn.Parameter(torch.full((num_parameters,), float(init), **factory))

    @property
    def weight(self) -> Tensor:
        """Slopes in use."""
        return self.raw_weight.clamp(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x where it is positive, and the slope times x elsewhere."""
        return F.prelu(x, self.weight)

    def lipschitz_bound(self) -> Tensor:
        """Return 1; a slope that is infinite or NaN is refused."""
        exact(self.raw_weight)
        return torch.ones((), dtype=torch.float64)

    @torch.no_grad()
    def export(self) -> nn.PReLU:
        """Return ``nn.PReLU`` with the slopes in use."""
        plain = nn.PReLU(self.num_parameters, device="meta")
        plain.weight = nn.Parameter(self.weight.clone())
        return plain

    def to_chain(self, value: Value) -> Value:
        """Read the layer as the activation that it is exported to."""
        self.lipschitz_bound()  # refuses slopes that are not finite
        return read_module(self.export(), value)

    def forward_error(self, run: Run) -> Local:
        """Rounding of one product."""
        return rounding_of(self.export())(run)

    def extra_repr(self) -> str:
        """Number of slopes."""
        return str(self.num_parameters)
