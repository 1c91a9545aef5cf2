"""Base of layers that move or drop numbers, or add zeros, and compute nothing."""

import abc

import torch
from torch import Tensor

from onelip.chains.linear_layers import moved
from onelip.chains.value import Value
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.lipschitz import LipschitzModule


class MovedNumbers(LipschitzModule):
    """A layer whose outputs are inputs, each at most once, or zeros; ``forward`` must keep to that.

    Bound: 1.
    """

    same_in_float64 = True

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Move numbers."""

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a map that moves numbers."""
        return moved(value, self)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)
