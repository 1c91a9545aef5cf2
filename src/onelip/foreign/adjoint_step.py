"""Gradient step with a zero-padded convolution of any kernel size, and its adjoint."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import norms
from onelip.activations import slopes
from onelip.layers.gradient_step import gradient_step_bound
from onelip.lipschitz import LipschitzModule


class AdjointStep(LipschitzModule):
    """``x - step * K^T activation(K x + b)``, K a zero-padded convolution of stride 1.

    ``GradientStep`` does the same in plain modules, for odd kernels without groups that keep the
    image's size.

    Bound: ``max(1, step s |K|^2 - 1)``, s the largest slope of the activation.
    Shape: ``(batch, channels, height, width)`` to the same.
    Cost: two convolutions.

    Args:
        weight: ``(hidden, channels / groups, k, k)``.
        bias: ``(hidden,)`` or None.
        activation: an elementwise activation of torch.
        step: a number >= 0 that float32 holds exactly.
        padding: number of zeros on each side.
        groups: blocks of channels.

    Example:
        >>> import onelip
        >>> box = torch.full((1, 1, 2, 2), 0.25)
        >>> layer = AdjointStep(box, None, nn.ReLU(), step=2.0, padding=0, groups=1)
        >>> onelip.lipschitz_bound(layer)
        tensor(1.0000, dtype=torch.float64)
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: nn.Module,
        *,
        step: float,
        padding: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.activation, self.step = activation, step
        self.padding, self.groups = padding, groups

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - step * K^T activation(K x + b)``."""
        padding, groups = self.padding, self.groups
        inner = F.conv2d(x, self.weight, self.bias, padding=padding, groups=groups)
        hidden = self.activation(inner)
        # the transposed convolution with the same kernel and padding is the exact adjoint
        outer = F.conv_transpose2d(hidden, self.weight, padding=padding, groups=groups)
        return x - self.step * outer

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        norm = norms.convolution(self.weight, padding=self.padding, groups=self.groups)
        step = torch.tensor(self.step, dtype=torch.float64)
        return gradient_step_bound(step, norm, slopes(self.activation))

    def extra_repr(self) -> str:
        """Shape of the kernel, step and padding."""
        return f"{tuple(self.weight.shape)}, step={self.step}, padding={self.padding}"
