"""Maximum of the two halves of the channels (Singla, Feizi, NeurIPS 2022)."""

import torch
from torch import Tensor

from onelip.chains.linear_layers import expect, moved
from onelip.chains.value import Value
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.layers.group_sort import MaxMin, sorted_channels
from onelip.lipschitz import LipschitzModule


class ChannelMaxPool(LipschitzModule):
    """``max(x_i, x_{i + c/2})``: half of the channels, at every pixel.

    After invertible downsampling and an orthogonal convolution this is the pooling of LipConvnets.

    Bound: 1, attained; the Jacobian selects.
    Shape: ``(batch, channels, ...)`` to ``(batch, channels / 2, ...)``.
    Cost: one elementwise operation.

    Raises:
        ValueError: in ``forward``, an odd number of channels.

    Example:
        >>> ChannelMaxPool()(torch.tensor([[1.0, 4.0, 3.0, 2.0]]))
        tensor([[3., 4.]])

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022.
    """

    same_in_float64 = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``max(x_i, x_{i + c/2})``."""
        if x.shape[1] % 2:
            raise ValueError(f"{x.shape[1]} channels have no halves: an even number is asked")
        first, second = x.chunk(2, 1)
        return torch.maximum(first, second)

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a sort of pairs of channels, of which the first is kept."""
        expect(value, "(an even number, ...)", value.shape[0] % 2 == 0)
        pairs = moved(value, lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))
        return moved(sorted_channels(MaxMin(), 2, pairs), lambda x: x[:, ::2])

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)
