"""Sorting activations, which keep the norm of gradients (Anil, Lucas, Grosse, ICML 2019)."""

from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import GroupSorting
from onelip.chains.linear_layers import expect
from onelip.chains.value import Value
from onelip.custom_gradients import forward_mode
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.lipschitz import LipschitzModule


class GroupSort(LipschitzModule):
    """Sort the channels of each group of neighbours in ascending order.

    Bound: 1, attained; the Jacobian is a permutation.
    Shape: ``(batch, channels, ...)`` to the same; ``group_size`` must divide the channels.
    Cost: a sort along the channels.

    Args:
        group_size: channels of a group; None for all of them.

    Raises:
        ValueError: in ``forward``, channels that do not divide into groups.

    Example:
        >>> GroupSort(3)(torch.tensor([[3.0, 1.0, 2.0, 6.0, 5.0, 4.0]]))
        tensor([[1., 2., 3., 4., 5., 6.]])
    """

    same_in_float64 = True

    def __init__(self, group_size: int | None) -> None:
        super().__init__()
        if group_size is not None and group_size < 1:
            raise ValueError(f"group_size must be positive, got {group_size}")
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """Sort each group of channels."""
        return _groups(x, self.group_size).sort(dim=2).values.flatten(1, 2)

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a sort within groups of channels."""
        return sorted_channels(self, self.group_size, value)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


class MaxMin(LipschitzModule):
    """The maximum and the minimum of each pair of neighbouring channels, in this order.

    Bound: 1, attained; the Jacobian is a permutation.
    Shape: ``(batch, channels, ...)`` to the same; the channels must be even.
    Cost: two elementwise operations.

    Raises:
        ValueError: in ``forward``, an odd number of channels.

    Example:
        >>> MaxMin()(torch.tensor([[1.0, 2.0, 4.0, 3.0]]))
        tensor([[2., 1., 4., 3.]])
    """

    same_in_float64 = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum and the minimum of each pair of channels."""
        first, second = _groups(x, 2).unbind(2)
        if forward_mode():
            return _SortedPair.forward(first, second)
        y: Tensor = _SortedPair.apply(first, second)  # type: ignore[no-untyped-call]
        return y

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a sort within groups of channels."""
        return sorted_channels(self, 2, value)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


class _SortedPair(torch.autograd.Function):
    """Maximum and minimum, with one mask for both gradients; autograd's own take six times as long.

    At ties the gradient passes as if no pair was swapped.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        """Interleave maxima and minima along dimension 1."""
        return torch.stack((torch.maximum(first, second), torch.minimum(first, second)), 2).flatten(
            1, 2
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        """Save the mask of swapped pairs."""
        first, second = inputs
        ctx.save_for_backward(first < second)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Swap the gradients of the pairs that were swapped."""
        (swapped,) = ctx.saved_tensors
        count, _, *rest = gradients[0].shape
        upper, lower = gradients[0].reshape(count, -1, 2, *rest).unbind(2)
        return torch.where(swapped, lower, upper), torch.where(swapped, upper, lower)


def _groups(x: Tensor, size: int | None) -> Tensor:
    """Split the channels into groups of neighbours, ``(batch, groups, size, ...)``."""
    size = x.shape[1] if size is None else size
    if x.shape[1] % size:
        raise ValueError(f"{x.shape[1]} channels do not divide into groups of {size}")
    groups: Tensor = x.unflatten(1, (-1, size))
    return groups


def sorted_channels(module: nn.Module, size: int | None, value: Value) -> Value:
    """Append a module that sorts groups of channels to a value."""
    size = value.shape[0] if size is None else size
    expect(value, f"(a multiple of {size}, ...)", value.shape[0] % size == 0)
    return value.activated(GroupSorting(module, size))
