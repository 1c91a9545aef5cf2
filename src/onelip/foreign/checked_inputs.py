"""Layers that are 1-Lipschitz on inputs of the right shape only, and check the input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.errors import UnboundedModuleError
from onelip.layers.normalize import Normalize
from onelip.lipschitz import LipschitzModule, ModuleRecord, Rule
from onelip.norms.rounding import exact, upward

UNCHECKED = "stretches inputs of another shape than it is made for, and does not look"


def factor_above(factor: float) -> float:
    """Upper bound of the size of a Python factor after rounding to float32 or float64."""
    rounded = float(torch.tensor(factor, dtype=torch.float32))
    return max(abs(float(factor)), abs(rounded))


def export_first(reason: str) -> Rule:
    """Return the rule that refuses modules which have a bound only after ``onelip.export``."""

    def refuse(module: nn.Module) -> Tensor:
        raise UnboundedModuleError(
            f"{type_before_parametrizations(module).__name__} {reason}: onelip.export(model) puts "
            "layers there that have a bound"
        )

    return refuse


def unchecked(convert: Callable[[Any], nn.Module]) -> ModuleRecord:
    """Return the record of modules that are 1-Lipschitz on inputs of the right shape only."""
    return ModuleRecord(lipschitz_bound=export_first(UNCHECKED), export=convert)


def normalized(mean: Tensor, std: Tensor) -> Normalize:
    """Return the layer ``(x - mean) / std``, with the dtype and device of ``mean`` and ``std``."""
    layer = Normalize([0.0] * len(mean), [1.0] * len(mean))
    layer.mean, layer.std = mean.detach().clone(), std.detach().clone()
    return layer


class Centering(LipschitzModule):
    """Subtract the mean over some axes, and add one number per channel.

    Bound: 1, an orthogonal projection and a shift.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: elementwise.

    Args:
        axes: over which the mean is taken, as ``torch.mean`` counts them.
        bias: ``(channels,)``, or None for any number of channels.

    Raises:
        ValueError: in ``forward``, another number of channels, or axes that hold the batch.

    Example:
        >>> Centering((-2, -1), None)(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[[[-1.,  1.]]]])
    """

    def __init__(self, axes: tuple[int, ...], bias: Tensor | None) -> None:
        super().__init__()
        self.axes = axes
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - mean + bias``."""
        # dimension 0 is the batch: a mean over it would couple samples
        if any(axis % x.ndim == 0 for axis in self.axes):
            raise ValueError(f"axes {self.axes} hold the batch of an input with {x.ndim} axes")
        centered = x - x.mean(self.axes, keepdim=True)
        if self.bias is None:
            return centered
        _check_channels(x, len(self.bias))
        return centered + self.bias.view(-1, *(1,) * (x.ndim - 2))

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)


class HalvesHouseHolder(LipschitzModule):
    r"""Fold the planes of channels i and i + channels / 2, and scale.

    A point with :math:`x \sin(\theta / 2) > y \cos(\theta / 2)` is reflected at that line.

    Bound: the scale, times the largest norm of a reflection with the cosines that were computed,
    about ``1 + 1e-7`` in float32. The pieces meet up to a few units in the last place.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: about ten elementwise operations.

    Args:
        theta: ``(channels / 2,)``.
        scale: factor of the output.

    Raises:
        ValueError: in ``forward``, another number of channels.

    Example:
        >>> HalvesHouseHolder(torch.tensor([torch.pi / 2]))(torch.tensor([[1.0, 2.0]])).detach()
        tensor([[1., 2.]])
    """

    def __init__(self, theta: Tensor, *, scale: float = 1.0) -> None:
        super().__init__()
        self.theta, self.scale = nn.Parameter(theta.detach().flatten().clone()), scale

    def forward(self, z: Tensor) -> Tensor:
        """Reflect the points beyond the line, and scale."""
        _check_channels(z, 2 * len(self.theta))
        theta = self.theta.view(-1, *(1,) * (z.ndim - 2))
        x, y = z.chunk(2, dim=1)
        beyond = x * (theta / 2).sin() - y * (theta / 2).cos() > 0
        first = torch.where(beyond, x * theta.cos() + y * theta.sin(), x)
        second = torch.where(beyond, x * theta.sin() - y * theta.cos(), y)
        return torch.cat([first, second], dim=1) * self.scale

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        squares = exact(self.theta.cos()).square() + exact(self.theta.sin()).square()
        # the computed reflection has norm sqrt(cos^2 + sin^2) of the rounded cosine and sine
        reflection = upward(squares, 3).sqrt().max().clamp(min=1)
        return upward(reflection * factor_above(self.scale), 2).cpu()


def _check_channels(x: Tensor, channels: int) -> None:
    """Refuse an input whose channels would be broadcast."""
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"{channels} channels are asked, got {tuple(x.shape)}")
