"""N-activation: piecewise linear with slopes 1, -1, 1 (Prach, Lampert, 2023)."""

from typing import Unpack

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise
from onelip.chains.linear_layers import expect
from onelip.chains.value import Value
from onelip.forward_error import Local, Run, repeated
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact

_FAR = -100.0  # a threshold that inputs do not reach


class NActivation(LipschitzModule):
    r"""Slopes 1, -1, 1, with two learnable thresholds :math:`a \le b` for each channel.

    ``x - 2 a`` below a, ``-x`` between, ``x - 2 b`` above b. Networks of one input with this
    activation represent every continuous, piecewise linear, 1-Lipschitz function; with ``MaxMin``
    they do not. The thresholds are the two stored numbers in ascending order, so a is never above
    b, where the slope would be 3. Channels start by turns as the absolute value (a = -100, b = 0)
    and as the identity (a = b = 0). The authors train the thresholds at a hundredth of the learning
    rate and without weight decay.

    Bound: 1, attained; the slopes are 1 and -1 for all thresholds.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: a few elementwise operations.

    Args:
        channels: channels of the input.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: in ``forward``, another number of channels.

    Example:
        >>> NActivation(2)(torch.tensor([[-1.0, -1.0], [2.0, 2.0]]))
        tensor([[ 1., -1.],
                [ 2.,  2.]], grad_fn=<SubBackward0>)

    Reference: Prach, Lampert, "1-Lipschitz Neural Networks are more expressive with N-Activations",
    2023.
    """

    same_in_float64 = True

    def __init__(self, channels: int, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.channels = channels
        self.theta = nn.Parameter(torch.zeros(2, channels, **factory))
        nn.init.constant_(self.theta[0, ::2], _FAR)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - 2 clamp(x, a, b)``."""
        if x.shape[1] != self.channels:
            raise ValueError(f"NActivation has thresholds for {self.channels}, got {x.shape[1]}")
        first, second = self.theta.view(2, -1, *(1,) * (x.ndim - 2))
        sorted_already = first <= second  # equal thresholds keep their order, as in a stable sort
        low = torch.where(sorted_already, first, second)
        high = torch.where(sorted_already, second, first)
        inner = torch.where(x > high, high, x)
        return x - 2 * torch.where(x < low, low, inner)  # a clamp would mix their gradients

    def lipschitz_bound(self) -> Tensor:
        """Return 1; thresholds that are infinite or NaN are refused."""
        exact(self.theta)
        return torch.ones((), dtype=torch.float64)

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(self.channels)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as an activation with slopes between -1 and 1."""
        expect(value, f"({self.channels}, ...)", value.shape[0] == self.channels)
        one = self.lipschitz_bound()
        return value.activated(Elementwise(self, -one, one))

    def forward_error(self, run: Run) -> Local:
        """Rounding of the difference in ``x - 2 clamp(x)``; clamp and doubling are exact."""
        low, high = exact(self.theta).cpu().sort(dim=0).values
        shift = low.relu() + (-high).relu()  # one of them is 0
        offset = 2 * repeated(shift, run)
        return Local(offset, run.rounding(1, run.x.reach + offset))
